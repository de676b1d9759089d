// Package appsettings reads the configuration of an instance from the files
// that operators of .NET applications know: appsettings.json with its variant
// for the environment, environment variables, and, for those who bring an older
// installation along, web.config.
//
//	settings, err := appsettings.Load(appsettings.Options{})
//
// Everything that is Carillon's own stands in the section "Carillon". From
// lowest to highest precedence:
//
//  1. web.config: the default provider of <event>, and the switches
//     enableEvents and enableRemoteEvents
//  2. EPiServer:Cms:EventProvider:Provider, from any of the sources below
//  3. appsettings.json
//  4. appsettings.{Environment}.json
//  5. environment variables, as in Carillon__Udp__Port=7071
//
// No file has to be there. Keys are compared without regard to case, JSON files
// may have comments and trailing commas, and a byte order mark is skipped.
// Sections of others are left alone; within "Carillon" an unknown key is an
// error, because a misspelt one would otherwise be obeyed silently as its
// default. All that is wrong is reported at once, in one [*Error]: by [Load], and
// for the sections of the application's own providers, whose keys only their
// factories know, by [Settings.Config].
//
// The guide docs/configuration.md lists every key.
package appsettings
