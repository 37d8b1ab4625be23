package schema

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/sync/record"
)

// readCities reads a file of name, lat, lng, country, admin1, admin2.
func readCities(t testing.TB, path string) (states []*record.State) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows[1:] {
		lat, err := strconv.ParseFloat(r[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		lng, err := strconv.ParseFloat(r[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, cityState(r[0], lat, lng, r[3], r[4], r[5]))
	}
	return states
}

func someCities(t testing.TB) *memory {
	m := newMemory(citySchema())
	for n, s := range readCities(t, filepath.Join("testdata", "cities.csv")) {
		m.set(cityCollection, testID(n), s)
	}
	return m
}

func names(rows []Row) (out []string) {
	for _, r := range rows {
		out = append(out, string(r.State.Field(1).Text())+", "+string(r.State.Field(4).Text()))
	}
	return out
}

// What people type finds what they mean.
func TestFindCities(t *testing.T) {
	m := someCities(t)
	for _, c := range []struct {
		words string
		want  []string
	}{
		{"sao paulo", []string{"São Paulo de Olivença, BR", "São Paulo, BR", "São Paulo, CV", "São Paulo, PT"}},
		{"SÃO PAU", []string{"São Paulo de Olivença, BR", "São Paulo, BR", "São Paulo, CV", "São Paulo, PT"}},
		{"olivenca", []string{"São Paulo de Olivença, BR"}},
		{"paulo olive", []string{"São Paulo de Olivença, BR"}},
		{"aquila", []string{"L'Aquila, IT"}},
		{"l’aqui", []string{"L'Aquila, IT"}},
		{"laquila", []string{"L'Aquila, IT"}},
		{"djamena", []string{"N'Djamena, TD"}},
		{"ras bayrut", []string{"Ra’s Bayrūt, LB"}},
		{"givat han", []string{"Giv`at H̱ananya, IL"}},
		{"bet shaar", []string{"Bet Yitsẖaq Sha’ar H̱efer, IL"}},
		{"lodz", []string{"Łódź, PL"}},
		{"aero", []string{"Ærøskøbing, DK"}},
		{"WEISSK", []string{"Weißkirchen in Steiermark, AT"}},
		{"thorlaks", []string{"Þorlákshöfn, IS"}},
		{"yardimli", []string{"Yardımlı, AZ"}},
		{"djakovo", nil},
		{"dakovo", []string{"Đakovo, HR"}},
		{"слупчане", []string{"Слупчане, MK"}},
		{"μαξιμιανουπολισ", []string{"Mosynopolis, Maximianopolis, Μαξιμιανούπολις, GR"}},
		{"سنوسي", []string{"Sidi Senoussi سيدي سنوسي, DZ"}},
		{"sidi سيد", []string{"Sidi Senoussi سيدي سنوسي, DZ"}},
		{"ile bizard", []string{"L'Île-Bizard–Sainte-Geneviève, CA"}},
		{"new york", []string{"New York City, US"}},
		{"york new", []string{"New York City, US"}},
		{"yor new", nil}, // only the last word may be unfinished
		{"kakaako", []string{"Ala Moana - Kakaʻako, US"}},
		{"---", nil},
		{"paris france", nil},
	} {
		got := names(pages(t, m, m.schema, Query{Collection: cityCollection, Index: 3, Words: c.words, Limit: 2}))
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%q finds %q, want %q", c.words, got, c.want)
		}
	}
}

func TestBrowseCities(t *testing.T) {
	m := someCities(t)
	text := func(s string) record.Value { return record.Text(s) }
	for _, c := range []struct {
		what string
		q    Query
		want string
	}{
		{"by prefix, accents folded", Query{Index: 1, Prefix: "saint-"},
			"Saint-Denis, BE; Saint-Denis, BE; Saint-Denis, FR; Saint-Denis, IT; Saint-Étienne, FR"},
		{"by prefix with case and accents", Query{Index: 1, Prefix: "KØ"}, "Köln, DE"},
		{"by country, in order of state and name", Query{Index: 2, Equal: []record.Value{text("DK")}},
			"Copenhagen, DK; Videbæk, DK; Væggerløse, DK; Vipperød, DK; Ærøskøbing, DK"},
		{"in order of the alphabet", Query{Index: 2, Equal: []record.Value{text("dk"), text("20")}}, "Væggerløse, DK; Vipperød, DK"},
		{"by name, backwards", Query{Index: 1, Prefix: "k", Descending: true}, "Kyiv, UA; Köln, DE; Kiel, US; Kiel, DE; Kalimpong, Крукети, IN"},
		{"by country, state and name", Query{Index: 2, Equal: []record.Value{text("us"), text("IL")}}, "Paris, US"},
		{"by country, state and prefix", Query{Index: 2, Equal: []record.Value{text("BR"), text("04")}, Prefix: "sao p"}, "São Paulo de Olivença, BR"},
		{"a range", Query{Index: 1, From: Bound{text("paris"), true}, To: Bound{text("REYKJAVÍK"), false}},
			"Ra’s Bayrūt, LB; Reykjavík, IS"},
	} {
		c.q.Collection, c.q.Limit = cityCollection, 2
		got := strings.Join(names(pages(t, m, m.schema, c.q)), "; ")
		if got != c.want {
			t.Errorf("%s: %s\nwant %s", c.what, got, c.want)
		}
	}
}
