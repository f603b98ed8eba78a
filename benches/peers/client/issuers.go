package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// One of the servers, as its clients see it.
type issuer interface {
	// The certificate, DER.
	issue(limit context.Context, device device) ([]byte, error)
}

func connect(o *options) (issuer, error) {
	client, err := o.client()
	if err != nil {
		return nil, err
	}
	switch o.to {
	case "birthmark":
		// One connection that all clients share; otherwise each of them makes one at first, more than a station may have.
		reply, err := client.Head(o.url)
		if err != nil {
			return nil, err
		}
		reply.Body.Close()
		return &birthmark{client, o.url + "/birthmark.v1.Issuance/IssueOne", o.order}, nil
	case "step-ca":
		endpoint := o.url + "/1.0/sign"
		provisioner, err := readProvisioner(o.key, endpoint)
		return &stepCA{client, endpoint, provisioner}, err
	case "openbao":
		token, err := os.ReadFile(o.token)
		return &openBao{client, o.url + "/v1/pki/sign/device", strings.TrimSpace(string(token))}, err
	}
	return nil, fmt.Errorf("-to must be birthmark, step-ca or openbao, not %q", o.to)
}

func (o *options) client() (*http.Client, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.authority != "" {
		text, err := os.ReadFile(o.authority)
		if err != nil {
			return nil, err
		}
		settings.RootCAs = x509.NewCertPool()
		settings.RootCAs.AppendCertsFromPEM(text)
	}
	if o.identity != "" {
		pair, err := tls.LoadX509KeyPair(o.identity+"/cert.pem", o.identity+"/key.pem")
		if err != nil {
			return nil, err
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: settings, MaxIdleConnsPerHost: o.clients}
	// gRPC needs it; the others have a connection for each client.
	transport.ForceAttemptHTTP2 = o.to == "birthmark"
	return &http.Client{Transport: transport}, nil
}

func post(limit context.Context, client *http.Client, url string, header http.Header, body []byte) (*http.Response, []byte, error) {
	request, err := http.NewRequestWithContext(limit, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	// Nothing is sent a second time unseen.
	request.GetBody = nil
	request.Header = header
	response, err := client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %.200s", response.Status, reply)
	}
	return response, reply, err
}

func certificate(text string) ([]byte, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("the reply has no certificate")
	}
	return block.Bytes, nil
}

type stepCA struct {
	client      *http.Client
	endpoint    string
	provisioner *provisioner
}

func (s *stepCA) issue(limit context.Context, device device) ([]byte, error) {
	// A token is good for one request, so each try has its own.
	body, err := s.provisioner.request(device)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	_, reply, err := post(limit, s.client, s.endpoint, header, body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Certificate string `json:"crt"`
	}
	if err := json.Unmarshal(reply, &answer); err != nil {
		return nil, err
	}
	return certificate(answer.Certificate)
}

// A JWK provisioner's key, which signs one-time tokens.
type provisioner struct {
	key      *ecdsa.PrivateKey
	audience string
}

func readProvisioner(path, audience string) (*provisioner, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is no PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, is := parsed.(*ecdsa.PrivateKey)
	if !is {
		return nil, fmt.Errorf("%s is no key for ES256", path)
	}
	return &provisioner{key, audience}, nil
}

// The body of a sign request, with a new token.
func (p *provisioner) request(device device) ([]byte, error) {
	encode := base64.RawURLEncoding.EncodeToString
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{
		"iss": "peers", "aud": p.audience, "sub": device.Name, "sans": []string{device.Name}, "jti": rand.Text(),
		"iat": now, "nbf": now - 30, "exp": now + 3600,
	})
	if err != nil {
		return nil, err
	}
	signed := encode([]byte(`{"alg":"ES256","kid":"peers","typ":"JWT"}`)) + "." + encode(claims)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, p.key, digest[:])
	if err != nil {
		return nil, err
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return json.Marshal(map[string]string{"csr": device.CSR, "ott": signed + "." + encode(signature)})
}

type openBao struct {
	client   *http.Client
	endpoint string
	token    string
}

func (b *openBao) issue(limit context.Context, device device) ([]byte, error) {
	body, err := json.Marshal(map[string]string{"csr": device.CSR})
	if err != nil {
		return nil, err
	}
	header := http.Header{"X-Vault-Token": {b.token}}
	_, reply, err := post(limit, b.client, b.endpoint, header, body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Certificate string `json:"certificate"`
		} `json:"data"`
	}
	if err := json.Unmarshal(reply, &answer); err != nil {
		return nil, err
	}
	return certificate(answer.Data.Certificate)
}

// IssueOne of proto/birthmark/v1/issuance.proto, by hand: a message of a few strings needs no generated code.
type birthmark struct {
	client *http.Client
	call   string
	order  string
}

func (b *birthmark) issue(limit context.Context, device device) ([]byte, error) {
	var message []byte
	for _, field := range []struct {
		number int
		value  string
	}{{2, device.Name}, {3, b.order}, {4, "device"}, {5, device.CSR}} {
		message = append(message, byte(field.number<<3|2))
		message = binary.AppendUvarint(message, uint64(len(field.value)))
		message = append(message, field.value...)
	}
	// gRPC's frame: not compressed, and the length.
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	header := http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	response, reply, err := post(limit, b.client, b.call, header, frame)
	if err != nil {
		return nil, err
	}
	for _, trailer := range []http.Header{response.Trailer, response.Header} {
		if status := trailer.Get("Grpc-Status"); status != "" && status != "0" {
			return nil, fmt.Errorf("gRPC status %s: %s", status, trailer.Get("Grpc-Message"))
		}
	}
	if len(reply) < 5 {
		return nil, errors.New("the reply has no message")
	}
	if issued := field(reply[5:], 2); issued != nil {
		return field(issued, 1), nil
	}
	return nil, fmt.Errorf("refused: %s", field(reply[5:], 4))
}

// The last field of this number that has a length, or nil.
func field(message []byte, number uint64) (value []byte) {
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return nil
		}
		message = message[n:]
		length, n := binary.Uvarint(message)
		if n <= 0 {
			return nil
		}
		message = message[n:]
		if tag&7 == 0 {
			continue
		}
		if tag&7 != 2 || length > uint64(len(message)) {
			return nil
		}
		if tag>>3 == number {
			value = message[:length]
		}
		message = message[length:]
	}
	return value
}
