// Asks a CA for certificates, as its clients do, and writes down what was asked and what was given.
//
//	peers tokens   one request of step-ca's sign endpoint a line, each with a one-time token of its own
//	peers ask      a number of clients at once, each asking for one device after the other
//
// `ask` writes JSON lines: {"asked": DEVICE, "csr": PEM} before a device's first request, {"held": DEVICE, "certificate":
// BASE64, "ms": LATENCY} for each certificate that arrived, and {"failed": DEVICE, "why": TEXT, "at": UNIX_MS}. It makes a
// device's key and CSR itself. A client that fails ends, since it cannot know whether there is a certificate; with -again
// FILE the devices which an earlier run asked for in vain are asked for again, with the same CSR, until they have one.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

type device struct {
	Name string `json:"asked"`
	CSR  string `json:"csr"`
}

type line struct {
	device
	Held        string  `json:"held,omitempty"`
	Certificate []byte  `json:"certificate,omitempty"`
	Ms          float64 `json:"ms,omitempty"`
	Failed      string  `json:"failed,omitempty"`
	Why         string  `json:"why,omitempty"`
	At          int64   `json:"at,omitempty"`
}

func main() {
	if len(os.Args) < 2 {
		fatal(errors.New("the first argument must be tokens or ask"))
	}
	name, arguments := os.Args[1], os.Args[2:]
	switch name {
	case "tokens":
		fatal(tokens(arguments))
	case "ask":
		fatal(ask(arguments))
	default:
		fatal(fmt.Errorf("there is no %q", name))
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func tokens(arguments []string) error {
	flags := flag.NewFlagSet("tokens", flag.ExitOnError)
	key := flags.String("key", "", "the provisioner's private key, PEM")
	audience := flags.String("audience", "", "the sign endpoint's URL")
	list := flags.String("csrs", "", "a file that lists the CSRs' paths")
	number := flags.Int("number", 0, "how many")
	_ = flags.Parse(arguments)
	provisioner, err := readProvisioner(*key, *audience)
	if err != nil {
		return err
	}
	paths, err := os.ReadFile(*list)
	if err != nil {
		return err
	}
	var devices []device
	for _, path := range strings.Fields(string(paths)) {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return fmt.Errorf("%s is no PEM", path)
		}
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		devices = append(devices, device{csr.Subject.CommonName, string(text)})
	}
	if len(devices) == 0 {
		return fmt.Errorf("%s lists no CSR", *list)
	}
	out := bufio.NewWriter(os.Stdout)
	for n := range *number {
		body, err := provisioner.request(devices[n%len(devices)])
		if err != nil {
			return err
		}
		_, _ = out.Write(append(body, '\n'))
	}
	return out.Flush()
}

type options struct {
	to, url, authority, identity, order, token string
	key                                        string
	clients, count, tries                      int
	again, out                                 string
}

func ask(arguments []string) error {
	var o options
	flags := flag.NewFlagSet("ask", flag.ExitOnError)
	flags.StringVar(&o.to, "to", "", "birthmark, step-ca or openbao")
	flags.StringVar(&o.url, "url", "", "the server's URL")
	flags.StringVar(&o.authority, "authority", "", "the CA certificates of its TLS certificate, PEM")
	flags.StringVar(&o.identity, "identity", "", "birthmark: a station's folder")
	flags.StringVar(&o.order, "order", "", "birthmark: the order")
	flags.StringVar(&o.token, "token-file", "", "openbao: the file with a token")
	flags.StringVar(&o.key, "key", "", "step-ca: the provisioner's private key, PEM")
	flags.IntVar(&o.clients, "clients", 64, "how many ask at once")
	flags.IntVar(&o.count, "count", 1<<30, "for how many devices")
	flags.IntVar(&o.tries, "tries", 1, "how often a device is asked for before its client gives up")
	flags.StringVar(&o.again, "again", "", "the file of an earlier run")
	flags.StringVar(&o.out, "out", "", "the file to write")
	_ = flags.Parse(arguments)

	issuer, err := connect(&o)
	if err != nil {
		return err
	}
	next, err := o.devices()
	if err != nil {
		return err
	}
	file, err := os.Create(o.out)
	if err != nil {
		return err
	}
	log := &log{buffer: bufio.NewWriterSize(file, 1<<20)}
	var clients sync.WaitGroup
	for range o.clients {
		clients.Go(func() {
			for {
				device, err := next()
				if err != nil {
					log.write(line{Why: err.Error(), Failed: "-"})
					return
				}
				if device == nil || !log.one(issuer, device, o.tries) {
					return
				}
			}
		})
	}
	clients.Wait()
	return errors.Join(log.buffer.Flush(), file.Close())
}

// The devices, one a call; nil after the last one.
func (o *options) devices() (func() (*device, error), error) {
	if o.again == "" {
		var number atomic.Int64
		return func() (*device, error) {
			n := number.Add(1)
			if n > int64(o.count) {
				return nil, nil
			}
			return newDevice(fmt.Sprintf("device-%07d", n))
		}, nil
	}
	open, err := unanswered(o.again)
	if err != nil {
		return nil, err
	}
	var lock sync.Mutex
	return func() (*device, error) {
		lock.Lock()
		defer lock.Unlock()
		if len(open) == 0 {
			return nil, nil
		}
		first := open[0]
		open = open[1:]
		return &first, nil
	}, nil
}

func unanswered(path string) ([]device, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var asked []device
	held := map[string]bool{}
	for decoder := json.NewDecoder(file); decoder.More(); {
		var line line
		if err := decoder.Decode(&line); err != nil {
			return nil, err
		}
		if line.Name != "" {
			asked = append(asked, line.device)
		}
		held[line.Held] = true
	}
	var open []device
	for _, device := range asked {
		if !held[device.Name] {
			open = append(open, device)
		}
	}
	return open, nil
}

func newDevice(name string) (*device, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	return &device{name, string(text)}, nil
}

type log struct {
	lock   sync.Mutex
	buffer *bufio.Writer
}

func (l *log) write(line line) {
	text, err := json.Marshal(line)
	fatal(err)
	l.lock.Lock()
	defer l.lock.Unlock()
	_, err = l.buffer.Write(append(bytes.TrimSpace(text), '\n'))
	fatal(err)
}

// Whether the device got its certificate.
func (l *log) one(issuer issuer, device *device, tries int) bool {
	l.write(line{device: *device})
	for try := 1; ; try++ {
		began := time.Now()
		limit, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		der, err := issuer.issue(limit, *device)
		cancel()
		if err == nil {
			// What is no certificate of this device is none.
			certificate, broken := x509.ParseCertificate(der)
			if broken == nil && certificate.Subject.CommonName == device.Name {
				l.write(line{Held: device.Name, Certificate: der, Ms: float64(time.Since(began).Microseconds()) / 1e3})
				return true
			}
			err = errors.New("the reply has another certificate, or none")
		}
		l.write(line{Failed: device.Name, Why: err.Error(), At: time.Now().UnixMilli()})
		if try >= tries {
			return false
		}
		time.Sleep(time.Duration(try) * 200 * time.Millisecond)
	}
}
