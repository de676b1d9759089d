package provider

import "fmt"

// A SettingError says that one setting of a transport is wrong. The functions that make a [Provider] return it, so that who
// has read the setting from a file can say where it stands there. It is for errors that the setting itself explains: what the
// network or a server says is none.
type SettingError struct {
	Provider string // its name
	Setting  string // the field of its configuration, as in "MaxFrameBytes"; in files it is compared without regard to case

	// Err says what is wrong and what is wanted, to be read after the name of the setting: "is missing: want a URL", "-1: want 1 to 8".
	// Nothing in it is secret.
	Err error
}

// WrongSetting returns a [*SettingError]. What is wrong is formatted as by [fmt.Errorf].
func WrongSetting(provider, setting, format string, args ...any) error {
	return &SettingError{provider, setting, fmt.Errorf(format, args...)}
}

// Error returns provider, setting and what is wrong.
func (e *SettingError) Error() string { return fmt.Sprintf("%s: %s %v", e.Provider, e.Setting, e.Err) }

// Unwrap returns what is wrong.
func (e *SettingError) Unwrap() error { return e.Err }
