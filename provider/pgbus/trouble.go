package pgbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/carillon-go/carillon/provider/uplink"
)

// What was being done when something went wrong.
const (
	connecting = "connect to"
	listening  = "listen at"
	notifying  = "notify at"
	staying    = "stay connected to"
	storing    = "use the table for large frames at"
	reading    = "read large frames at"
)

// Codes of the server, which its documentation lists as SQLSTATE.
const (
	undefinedTable        = "42P01"
	insufficientPrivilege = "42501"
)

// where says where the server is, for people.
func (s *settings) where() string { return fmt.Sprintf("%s, database %q", s.server, s.database) }

// explain says what went wrong at the server and what to do about it. It repeats nothing that may hold a secret.
func (s *settings) explain(doing string, err error) error {
	if t, ok := errors.AsType[*uplink.Trouble](err); ok {
		return t
	}
	what, remedy := s.diagnose(err)
	// Of several hosts each says why it does not serve.
	if several := each(err); len(several) > 1 {
		var all []string
		for _, e := range several {
			one, cure := s.diagnose(e)
			if !slices.Contains(all, one) {
				all, remedy = append(all, one), cure
			}
		}
		what = strings.Join(all, "; another address: ")
		if !strings.Contains(s.server, ",") { // one, tried with TLS and then without
			what = all[len(all)-1]
		}
	}
	return uplink.NewTrouble(fmt.Sprintf("postgres: %s %s: %s; %s", doing, s.where(), what, remedy), err)
}

// each returns what was wrong with each of the addresses that were tried.
func each(err error) []error {
	connect, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok {
		return nil
	}
	if all, ok := connect.Unwrap().(interface{ Unwrap() []error }); ok {
		return all.Unwrap()
	}
	return nil
}

// diagnose returns what err means and what to do.
func (s *settings) diagnose(err error) (what, remedy string) {
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		return s.diagnoseAnswer(answer)
	}
	unknown, isUnknown := errors.AsType[*net.DNSError](err)
	certificate, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, pgconn.ErrReadOnlyConnection), errors.Is(err, pgconn.ErrStandbyConnection):
		return standby()
	case isUnknown && unknown.IsNotFound:
		return fmt.Sprintf("the host %q is not known", unknown.Name), "correct the host in the URL, or the name server"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return "nobody listens there", "start the server, or correct host and port in the URL"
	case isCertificate:
		return "its certificate is not accepted: " + uplink.FirstLine(certificate.Error()), "give sslrootcert the authority that signed it, and use a host that is in it"
	case strings.Contains(err.Error(), "refused TLS"):
		return "it does not speak TLS", "switch ssl on there, or write sslmode=disable if the network may read along"
	case strings.Contains(err.Error(), "invalid body length"), strings.Contains(err.Error(), "unknown message type"):
		return "what answers there is no PostgreSQL", "correct host and port in the URL"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		return "no answer in time", "is the server up, is the network to it open, and does a PostgreSQL answer there?"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, pgconn.ErrConnClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection ended", "see the server's log: it stopped, or this instance took nothing for too long; it is tried again"
	}
	return uplink.FirstLine(err.Error()), "it is tried again while the instance runs"
}

func standby() (what, remedy string) {
	return "it is a standby, or only lets read", "give the primary's address, or those of all separated by commas, of which the one is used that is no standby"
}

// diagnoseAnswer explains an error that the server itself answered with.
func (s *settings) diagnoseAnswer(e *pgconn.PgError) (what, remedy string) {
	said := uplink.FirstLine(e.Message)
	switch e.Code {
	case "28P01", "28000":
		return fmt.Sprintf("the user %q is not let in (%s)", s.user, said), "correct user and password in the URL, special characters percent-encoded, or the server's pg_hba.conf"
	case "3D000":
		return said, "correct the database in the URL, or create it"
	case insufficientPrivilege:
		if strings.Contains(e.Message, "for database") {
			return fmt.Sprintf("the user %q lacks a right (%s)", s.user, said), fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s", pgx.Identifier{s.database}.Sanitize(), pgx.Identifier{s.user}.Sanitize())
		}
		return fmt.Sprintf("the user %q lacks a right (%s)", s.user, said), s.grant()
	case undefinedTable:
		return said, "somebody removed the table, or instances mean another by its name (search_path): write schema.table into Table; it is made anew when the next large frame is sent"
	case "3F000":
		return said, "correct Table, or create the schema"
	case "25006":
		return standby()
	case "53300":
		return "it has no room for another connection (" + said + ")", "raise max_connections, or the limit of the role or database; an instance has up to 3"
	case "53100", "53200":
		return "it has run out of room (" + said + ")", "make room on its disk, or in its memory"
	case "54000":
		return "its queue of notifications is full (" + said + ")", "end the session that keeps it from being emptied: SELECT * FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'; how full it is says pg_notification_queue_usage()"
	case "57014":
		return "it gave up the statement (" + said + ")", "raise statement_timeout or lock_timeout of the user, and see what the server is busy with"
	case "57P01":
		return "it was stopped, or the connection was ended there (" + said + ")", "it is tried again"
	case "57P02", "57P03":
		return "it is stopping or starting (" + said + ")", "wait until it is up"
	case "57P05":
		return "it ends idle connections (" + said + ")", "set idle_session_timeout of the user to 0, or above a minute"
	case "26000", "42P05":
		return "statements are prepared on another connection than they are run on (" + said + ")", pooler
	}
	return fmt.Sprintf("%s (SQLSTATE %s)", said, e.Code), "see the log of the server"
}

func (s *settings) grant() string {
	return fmt.Sprintf("GRANT INSERT, SELECT, DELETE ON %s TO %s", s.table, pgx.Identifier{s.user}.Sanitize())
}

const pooler = "a connection pooler that shares connections among transactions (PgBouncer with pool_mode=transaction or statement) is in between: connect to the server itself, or switch the pooler to pool_mode=session"

// deaf says that notifications do not come back.
func (s *settings) deaf(what string) error {
	remedy := pooler
	if s.brought != nil {
		remedy = "what was given in code as Pool leads to another database or server, or " + pooler
	}
	return uplink.NewTrouble(fmt.Sprintf("postgres: listen at %s: %s; %s", s.where(), what, remedy), nil)
}

// codeOf returns the code of the server's answer, or nothing.
func codeOf(err error) string {
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		return answer.Code
	}
	return ""
}

// messageOf returns what the server said.
func messageOf(err error) string {
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		return uplink.FirstLine(answer.Message)
	}
	return ""
}
