package layers

import (
	"go/ast"
	"strconv"
	"strings"
	"testing"
)

// A test that sleeps is slow on a fast machine and fails on a slow one. Inside
// a synctest bubble the clock is fake, and sleeping costs nothing.
//
// Lexically inside synctest.Test is a bubble, and so it is inside a call of a
// function of the same folder that calls synctest.Test. A helper whose doc comment
// says that it runs in a bubble does, and the one helper named eventually may
// wait for real sockets and processes.
func TestTests_SleepInBubblesOnly(t *testing.T) {
	repo := read(t)
	wrappers := bubbleWrappers(repo)
	for _, s := range repo.sources {
		if !s.isTest && !forTests(s.dir) {
			continue
		}
		timePkg := importName(s.ast, "time")
		if timePkg == "" {
			continue
		}
		for _, decl := range s.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if ok && (fn.Name.Name == "eventually" || strings.Contains(fn.Doc.Text(), "bubble")) {
				continue
			}
			ast.Inspect(decl, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if id, ok := call.Fun.(*ast.Ident); ok && wrappers[s.dir+"."+id.Name] || entersBubble(s, call) {
						return false
					}
				}
				// Not only calls: a Sleep that is passed along sleeps as well.
				if e, ok := n.(ast.Expr); ok && selects(e, timePkg, "Sleep") {
					t.Errorf("%s: time.Sleep outside a synctest bubble; wait for the thing itself, or say in the helper's doc comment that it runs in a bubble",
						repo.fset.Position(n.Pos()))
				}
				return true
			})
		}
	}
}

// bubbleWrappers returns the functions, as "folder.name", that run what they are
// given in a bubble.
func bubbleWrappers(repo *repository) map[string]bool {
	wrappers := map[string]bool{}
	for _, s := range repo.sources {
		for _, decl := range s.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Recv != nil {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && entersBubble(s, call) {
					wrappers[s.dir+"."+fn.Name.Name] = true
				}
				return true
			})
		}
	}
	return wrappers
}

// entersBubble reports whether call is synctest.Test(…).
func entersBubble(s *source, call *ast.CallExpr) bool {
	return selects(call.Fun, importName(s.ast, "testing/synctest"), "Test")
}

// importName returns the name under which f knows the package of that path, or
// "" when it does not import it.
func importName(f *ast.File, path string) string {
	for _, spec := range f.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err != nil || p != path {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path[strings.LastIndex(path, "/")+1:]
	}
	return ""
}

// selects reports whether e is pkg.name.
func selects(e ast.Expr, pkg, name string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || pkg == "" || sel.Sel.Name != name {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == pkg
}
