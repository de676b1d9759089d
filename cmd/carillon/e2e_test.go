//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/carillon-go/carillon/examples/cms"
)

// A browser is a headless Chromium with one tab.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// newBrowser starts Chromium. Without it the test is skipped, or fails where
// nothing may be skipped.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		const why = "no browser: install the package chromium (apt-get install chromium)"
		if os.Getenv("CARILLON_NO_SKIP") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), // small in containers
	)
	ctx, closeTab := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		chromedp.Cancel(ctx) // it waits for the browser to end
		closeTab()
		stop()
	})
	b := &browser{t, ctx}
	b.do("start the browser", chromedp.EmulateViewport(1280, 900))
	return b
}

// within bounds what follows by patience.
func (b *browser) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.ctx, patience)
}

// do runs steps one after the other.
func (b *browser) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	// The first call decides how long the browser lives, so it has no bound.
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// open goes to an address, or with "" refreshes, and returns X-Cache and the
// text that a person sees.
func (b *browser) open(url string) (cache, text string) {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	var resp *network.Response
	var err error
	if url == "" {
		resp, err = chromedp.RunResponse(ctx, chromedp.Reload())
	} else {
		resp, err = chromedp.RunResponse(ctx, chromedp.Navigate(url))
	}
	if err != nil {
		b.t.Fatalf("open %q: %v", url, err)
	}
	return header(resp, "X-Cache"), b.text("main")
}

func header(resp *network.Response, name string) string {
	for k, v := range resp.Headers {
		if strings.EqualFold(k, name) {
			return strings.Trim(fmt.Sprintf("%s", v), `"`)
		}
	}
	return ""
}

func (b *browser) text(selector string) string {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(selector)))
	if err != nil {
		b.t.Fatalf("read %s: %v", selector, err)
	}
	return text
}

func (b *browser) location() string {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	at, err := chromedp.Run(ctx, chromedp.Location())
	if err != nil {
		b.t.Fatal(err)
	}
	return at
}

// fill replaces what is in a field, as a person does who selects all and types.
func (b *browser) fill(selector, value string) {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	css := chromedp.CSS(selector)
	err := chromedp.Do(ctx, chromedp.Clear(css), chromedp.SendKeys(css, value))
	if err != nil {
		b.t.Fatalf("fill %s: %v", selector, err)
	}
}

// press clicks a button or a link that leads to another page.
func (b *browser) press(selector string) {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		b.t.Fatalf("press %s: %v", selector, err)
	}
}

// eval runs JavaScript and returns its value.
func eval[T any](b *browser, js string) T {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", js, err)
	}
	return v
}

// The four steps: open the page on 1; edit it on 2; publish; refresh 1.
func TestBrowser_FourSteps(t *testing.T) {
	for _, how := range []struct {
		name  string
		args  []string
		fresh bool
	}{
		{"tcp", []string{"--provider", "tcp"}, true},
		{"udp", []string{"--provider", "udp"}, true},
		{"events off", []string{"--events=off"}, false},
	} {
		t.Run(how.name, func(t *testing.T) {
			one, two := newBrowser(t), newBrowser(t)
			d := startDemo(t, 2, how.args...)
			want := map[bool]string{true: "miss", false: "hit"}[how.fresh]

			t.Run("page", func(t *testing.T) {
				if _, text := one.open(d.url(1, "/sequence-numbers")); !strings.Contains(text, "How does one notice") {
					t.Fatalf("the page on 1: %s", text)
				}
				two.open(d.url(2, "/sequence-numbers"))
				two.press(`a[href="/edit/sequence-numbers"]`)
				two.fill("#title", "Sequence numbers, told anew")
				two.fill("#body", "A sentence written in a browser.\n\n## <b>Not bold</b>")
				two.press("button.main")
				if text := two.text("main"); !strings.Contains(text, "A sentence written in a browser.") || !strings.Contains(text, "<b>Not bold</b>") {
					t.Errorf("instance 2 shows %s", text)
				}
				cache, text := one.openWhen(how.fresh, "A sentence written in a browser.")
				if cache != want || strings.Contains(text, "told anew") != how.fresh {
					t.Errorf("refreshed: a %s with %.80q", cache, text)
				}
				if cache, _ := one.open(""); cache != "hit" {
					t.Errorf("refreshed again: a %s", cache)
				}
			})

			t.Run("permanent link", func(t *testing.T) {
				// The link in a text is followed, as a visitor would.
				one.open(d.url(1, "/the-classic-test"))
				one.press(`main a[href="/link/13"]`)
				if at := one.location(); at != d.url(1, "/permanent-links") {
					t.Fatalf("the link on 1 leads to %s", at)
				}
				two.open(d.url(2, "/permanent-links"))
				two.press(`a[href="/rename/permanent-links"]`)
				two.fill("#slug", "links-that-last")
				two.press("button.main")
				if at := two.location(); at != d.url(2, "/links-that-last") {
					t.Fatalf("instance 2 is at %s", at)
				}
				leads := func() string {
					one.open(d.url(1, "/the-classic-test"))
					one.press(`main a[href="/link/13"]`)
					return one.location()
				}
				if how.fresh {
					eventually(t, fresh, "the link on 1 leads to the new address", func() bool { return leads() == d.url(1, "/links-that-last") })
				} else if at := leads(); at != d.url(1, "/permanent-links") {
					t.Errorf("without events the link on 1 leads to %s", at)
				}
			})

			t.Run("workflow", func(t *testing.T) {
				if _, text := one.open(d.url(1, "/workflow/roles")); !strings.Contains(text, "begin a draft") {
					t.Fatalf("the workflow on 1: %s", text)
				}
				two.open(d.url(2, "/workflow/roles"))
				two.fill("#title", "Roles, a draft")
				two.press(`button[value="save"]`)
				two.press(`button[value="submit"]`)
				cache, _ := one.openWhen(how.fresh, "Roles, a draft")
				if cache != want {
					t.Errorf("refreshed: a %s", cache)
				}
				if !how.fresh {
					return
				}
				if cache, _ := one.open(""); cache != "hit" {
					t.Errorf("refreshed again: a %s", cache)
				}
				one.press(`button[value="publish"]`)
				if at := one.location(); at != d.url(1, "/roles") {
					t.Errorf("after publishing, 1 is at %s", at)
				}
				two.open(d.url(2, "/workflow/roles"))
				if _, text := two.openWhen(true, "begin a draft"); !strings.Contains(text, "Roles, a draft") {
					t.Errorf("the workflow on 2: %s", text)
				}
			})
		})
	}
}

// openWhen refreshes and returns what comes. If it is to change, it is given
// the time that it may take: the request that first shows it counts.
func (b *browser) openWhen(changes bool, shows string) (cache, text string) {
	b.t.Helper()
	deadline := time.Now().Add(fresh)
	for {
		cache, text = b.open("")
		if strings.Contains(text, shows) == changes {
			return cache, text
		}
		if !changes || time.Now().After(deadline) {
			b.t.Fatalf("refreshed: %.200q, want it to show %q: %v", text, shows, changes)
		}
	}
}

// The dashboard shows an event on its way, a network that is cut, and what
// arrives late because of it, and refreshes the pages of those that were told.
func TestBrowser_Dashboard(t *testing.T) {
	b := newBrowser(t)
	d := startDemo(t, 2)
	b.do("open the dashboard", chromedp.Navigate(d.url(0, "/")))
	showing := func(instance int) string {
		return eval[string](b, fmt.Sprintf(`document.querySelector("#i%d [data-is=location]").textContent + " " + document.querySelector("#i%d [data-is=stale]:not([hidden])")?.textContent`, instance, instance))
	}
	click := func(selector string) {
		t.Helper()
		ctx, cancel := b.within()
		defer cancel()
		if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
			t.Fatalf("click %s: %v", selector, err)
		}
	}
	feed := func() string { return eval[string](b, `document.getElementById("feed").textContent`) }
	status := func(instance int) string {
		return eval[string](b, fmt.Sprintf(`document.querySelector("#i%d [data-is=status]").textContent`, instance))
	}

	eventually(t, patience, "both frames show the notice board", func() bool {
		return strings.HasPrefix(showing(1), "/notice-board ") && strings.HasPrefix(showing(2), "/notice-board ")
	})
	eventually(t, patience, "both are in step", func() bool {
		return status(1) == "in step with 1 other" && status(2) == "in step with 1 other"
	})
	click("#i2 [data-do=notice]")
	eventually(t, patience, "the event has travelled", func() bool {
		text := feed()
		return strings.Contains(text, "Instance 2raised") && strings.Contains(text, "Instance 1after ")
	})

	// Else the refresh comes after the next notice, and fetches that one.
	eventually(t, patience, "the frame of 1 is refreshed", func() bool { return eval[string](b, `document.getElementById("i1").dataset.revision`) == "2" })

	click("#i1 [data-do=cut]")
	eventually(t, patience, "the network is cut", func() bool { return status(1) == "network cut" })
	click("#i2 [data-do=notice]")
	eventually(t, patience, "the copy on 1 is stale", func() bool { return strings.HasSuffix(showing(1), "stale: revision 2 of 3") })
	if text := feed(); !strings.Contains(text, "Instance 1cut off") {
		t.Errorf("the feed does not say that 1 is cut off: %s", text)
	}
	click("#i1 [data-do=cut]")
	eventually(t, patience, "the copy on 1 is fresh", func() bool { return strings.HasSuffix(showing(1), "undefined") })
	if text := feed(); strings.Contains(text, "Missed") {
		t.Errorf("what was lost is not repaired: %s", text)
	}

	click("#i1 [data-do=kill]")
	eventually(t, patience, "instance 1 is stopped", func() bool { return status(1) == "stopped" })
	click("#i1 [data-do=kill]")
	eventually(t, patience, "instance 1 is back", func() bool { return status(1) == "in step with 1 other" })
}

// The dashboard says of each instance that the message broker is away, and stops saying so.
func TestBrowser_ShowsThatTheMessageBrokerIsAway(t *testing.T) {
	redis := startRedis(t)
	t.Setenv("Carillon__Redis__Url", redis.url)
	b := newBrowser(t)
	d := startDemo(t, 2, "--provider", "redis")
	b.do("open the dashboard", chromedp.Navigate(d.url(0, "/")))
	// seen returns the texts that a person sees of these, of both instances.
	seen := func(what string) string {
		return eval[string](b, fmt.Sprintf(`[...document.querySelectorAll("[data-is=%s]")].filter((e) => e.checkVisibility()).map((e) => e.textContent).join("\n")`, what))
	}
	const inStep = "in step with 1 other\nin step with 1 other"
	eventually(t, patience, "both are in step", func() bool { return seen("status") == inStep && seen("away") == "" })

	redis.kill()
	eventually(t, patience, "both say that it is away", func() bool {
		return seen("status") == "redis is away\nredis is away" && strings.Count(seen("away"), "nobody listens there; start the server") == 2
	})
	if low := eval[string](b, lowContrast); low != "" {
		t.Errorf("hard to read: %s", low)
	}

	redis.start()
	eventually(t, patience, "both are in step again", func() bool { return seen("status") == inStep && seen("away") == "" })
	eventually(t, patience, "the feed tells both", func() bool {
		text := eval[string](b, `document.getElementById("feed").innerText`) // what is hidden is not in it
		return strings.Count(text, "redis is away") == 2 && strings.Count(text, "redis is back") == 2
	})
}

// The dashboard says what carries the events, also after a move, and what became of an event that nobody could decode.
func TestBrowser_ShowsAMoveAndAnUndecodableEvent(t *testing.T) {
	t.Setenv("Carillon__Standby", "udp")
	b := newBrowser(t)
	d := startDemo(t, 2)
	b.do("open the dashboard", chromedp.Navigate(d.url(0, "/")))
	site := []string{"--database", "sqlite:" + filepath.Join(d.folder, demoFile), "--site", cms.SiteName}
	text := func(id string) string {
		return eval[string](b, fmt.Sprintf(`document.getElementById(%q).textContent`, id))
	}

	if r := carillonCmd(t, nil, append([]string{"raise", "5b0f6a0e-0b1c-4f43-9a5f-6c2f1d1f8a01", "hi"}, site...)...); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	eventually(t, patience, "the feed tells of the event", func() bool {
		feed := text("feed")
		return strings.Count(feed, "Missed 1 event") == 2 && strings.Count(feed, "Dropped 1 event") == 2
	})
	if feed := text("feed"); strings.Contains(feed, "received") || strings.Contains(feed, "1 frame") {
		t.Errorf("the feed says of an event that nobody could decode: %s", feed)
	}

	eventually(t, patience, "it says tcp", func() bool { return text("carrier") == "tcp" })
	if r := carillonCmd(t, nil, append([]string{"provider", "migrate", "udp", "--overlap", "1s"}, site...)...); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	eventually(t, patience, "it says udp", func() bool { return text("carrier") == "udp" })
	eventually(t, patience, "the feed tells of the move", func() bool { return strings.Count(text("feed"), "sends on udp") == 2 })
}

// Nothing is wider than a phone, in light and dark, and nothing is written in a
// colour that one cannot read.
func TestBrowser_FitsAPhone(t *testing.T) {
	b := newBrowser(t)
	d := startDemo(t, 2)
	b.do("be a phone", chromedp.EmulateViewport(360, 740, func(p *emulation.SetDeviceMetricsOverrideParams, _ *emulation.SetTouchEmulationEnabledParams) {
		p.Mobile = true
	}))
	for _, scheme := range []string{"light", "dark"} {
		ctx, cancel := b.within()
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		background := ""
		for _, at := range []string{
			d.url(0, "/"), d.url(1, "/"), d.url(1, "/roles"), d.url(1, "/edit/roles"), d.url(1, "/rename/roles"),
			d.url(1, "/workflow/"), d.url(1, "/workflow/roles"), d.url(1, "/nowhere"),
		} {
			b.do("open "+at, chromedp.Navigate(at))
			if w := eval[float64](b, `document.documentElement.scrollWidth`); w > 360 {
				t.Errorf("%s is %v pixels wide", at, w)
			}
			if low := eval[string](b, lowContrast); low != "" {
				t.Errorf("%s, %s: hard to read: %s", at, scheme, low)
			}
			background = eval[string](b, `getComputedStyle(document.body).backgroundColor`)
		}
		if light := background == "rgb(251, 250, 247)"; light != (scheme == "light") {
			t.Errorf("%s: the background is %s", scheme, background)
		}
	}
}

// lowContrast returns the texts of a page whose contrast with their background
// is below 4.5 to 1, which is what guidelines for accessibility ask for.
const lowContrast = `(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (css) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = css;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const f = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
  };
  const behind = (el) => {
    for (; el; el = el.parentElement) {
      const c = rgba(getComputedStyle(el).backgroundColor);
      if (c[3] === 255) return c;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const el of document.querySelectorAll("body *")) {
    if (![...el.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    if (!el.checkVisibility() || el.disabled) continue;
    const [a, b] = [luminance(rgba(getComputedStyle(el).color)), luminance(behind(el))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(el.tagName + "." + el.className + " " + ratio.toFixed(2));
  }
  return low.join(", ");
})()`
