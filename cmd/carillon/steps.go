package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/carillon-go/carillon/site"
)

// What commands have in common that change a site step by step: secret rotate, provider migrate and provider abort.

// checkTimes refuses times with which no such command works.
func checkTimes(overlap, patience, wait time.Duration) error {
	if overlap <= 0 || patience <= 0 || wait < 0 {
		return &problem{exitUsage, errors.New("--overlap and --patience must be above 0, and --wait not below"), ""}
	}
	return nil
}

// tellStep prints a step, as its text or as one line of JSON. That nobody reads it is no reason to stop.
func tellStep(w io.Writer, asJSON bool, info any, text string) {
	if asJSON {
		json.NewEncoder(w).Encode(info)
		return
	}
	fmt.Fprintln(w, text)
}

// away is the name of what is told instead of a step while the site database is away.
const away = "away"

func awayText(err error) string {
	return fmt.Sprintf("the site database is away, waiting for it: %v", err)
}

// withoutText is the text of a step before which instances were given up.
func withoutText(left []site.Member, patience time.Duration, text string) string {
	return fmt.Sprintf("going on without %s, lapsed for %v: %s", plural(len(left), "instance"), patience, text)
}

// describeAll describes rows; nil if there are none.
func describeAll(rows []site.Member) (all []memberInfo) {
	for _, m := range rows {
		all = append(all, describe(m))
	}
	return all
}
