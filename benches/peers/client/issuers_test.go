package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A one-time token is signed as RFC 7515 and 7518 have it, and no two are the same.
func TestTokensAreSignedAndDiffer(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	provisioner := &provisioner{key, "https://ca/1.0/sign"}
	seen := map[string]bool{}
	for range 50 {
		body, err := provisioner.request(device{"device-0000001", "a CSR"})
		if err != nil {
			t.Fatal(err)
		}
		var request struct{ CSR, OTT string }
		if err := json.Unmarshal(body, &request); err != nil || request.CSR != "a CSR" || seen[request.OTT] {
			t.Fatal(err, request)
		}
		seen[request.OTT] = true
		parts := strings.Split(request.OTT, ".")
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil || len(signature) != 64 {
			t.Fatal(err, len(signature))
		}
		digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
		if !ecdsa.Verify(&key.PublicKey, digest[:], r, s) {
			t.Fatal("the signature is wrong")
		}
	}
}

// Fields are found by number whatever stands between them, and a cut message gives nothing wrong.
func TestFieldIsFoundByItsNumber(t *testing.T) {
	message := []byte{2<<3 | 2, 3, 1<<3 | 2, 1, 'x', 3 << 3, 7, 4<<3 | 2, 2, 'n', 'o'}
	if issued := field(message, 2); string(field(issued, 1)) != "x" {
		t.Fatal(issued)
	}
	if string(field(message, 4)) != "no" || field(message, 5) != nil {
		t.Fatal("other fields")
	}
	for cut := range message {
		_ = field(message[:cut], 4)
	}
}

// What was asked for and did not arrive is asked for again with the same CSR, and what arrived is not.
func TestOnlyUnansweredAreAskedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := `{"asked":"a","csr":"1"}
{"asked":"b","csr":"2"}
{"asked":"","csr":"","held":"a","certificate":"AA==","ms":1}
{"asked":"","csr":"","failed":"b","why":"cut","at":1}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	open, err := unanswered(path)
	if err != nil || len(open) != 1 || open[0] != (device{"b", "2"}) {
		t.Fatal(open, err)
	}
}

// An answer that is no certificate counts as a failure.
func TestReplyWithoutCertificateFails(t *testing.T) {
	for _, reply := range []string{"{}", `{"data":{"certificate":"no PEM"}}`, "no JSON"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(reply))
		}))
		bao := &openBao{server.Client(), server.URL, "token"}
		if der, err := bao.issue(context.Background(), device{"a", "1"}); err == nil {
			t.Fatal(reply, der)
		}
		server.Close()
	}
}
