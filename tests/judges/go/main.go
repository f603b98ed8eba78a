// Judges issued device certificates with Go's crypto/x509: judge ROOT.pem ISSUER.pem CERT.pem…
//
// ROOT is trusted; ISSUER holds the issuing CA first, then whatever stands between it and ROOT. Prints
// `N certificates verified`, or on standard error the first bad certificate and what is wrong with it, and exits 1.
package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) > 3 && os.Args[1] == "crl" {
		if err := judgeList(os.Args[2:]); err != nil {
			fail(os.Args[3], err)
		}
		return
	}
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: judge ROOT.pem ISSUER.pem CERT.pem…")
		os.Exit(2)
	}
	roots, issuers := read(os.Args[1]), read(os.Args[2])
	judge := judge{issuer: issuers[0], bySerial: map[string]*x509.Certificate{}}
	judge.options = x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	judge.options.Roots.AddCert(roots[0])
	for _, issuer := range issuers {
		judge.options.Intermediates.AddCert(issuer)
	}

	for _, path := range os.Args[3:] {
		certificates := read(path)
		if len(certificates) != 1 {
			fail(path, fmt.Errorf("holds %d certificates instead of one", len(certificates)))
		}
		if err := judge.check(certificates[0]); err != nil {
			fail(path, err)
		}
	}
	fmt.Printf("%d certificates verified\n", len(os.Args)-3)
}

type judge struct {
	issuer   *x509.Certificate
	options  x509.VerifyOptions
	bySerial map[string]*x509.Certificate
}

func (j *judge) check(c *x509.Certificate) error {
	if err := c.CheckSignatureFrom(j.issuer); err != nil {
		return fmt.Errorf("not issued by ISSUER: %w", err)
	}
	if _, err := c.Verify(j.options); err != nil {
		return err
	}
	switch {
	case !bytes.Equal(c.RawIssuer, j.issuer.RawSubject):
		return errors.New("its issuer name is not ISSUER's subject, octet by octet")
	case c.Version != 3:
		return fmt.Errorf("its version is %d", c.Version)
	case !c.BasicConstraintsValid || c.IsCA:
		return errors.New("it does not say that it is no CA")
	case c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return errors.New("its key may sign certificates or CRLs")
	case c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("its key may not sign")
	case len(c.AuthorityKeyId) == 0 || !bytes.Equal(c.AuthorityKeyId, j.issuer.SubjectKeyId):
		return errors.New("its AuthorityKeyIdentifier is not ISSUER's SubjectKeyIdentifier")
	case len(c.UnhandledCriticalExtensions) != 0:
		return fmt.Errorf("unhandled critical extensions %v", c.UnhandledCriticalExtensions)
	case c.SerialNumber.Sign() <= 0:
		return errors.New("its serial number is not positive")
	case c.SerialNumber.BitLen()/8+1 > 20:
		return errors.New("its serial number has more than 20 octets")
	}
	serial := string(c.SerialNumber.Bytes())
	if other := j.bySerial[serial]; other != nil && !other.Equal(c) {
		return fmt.Errorf("another certificate has its serial number %x", c.SerialNumber)
	}
	j.bySerial[serial] = c
	return nil
}

// read gives the certificates of a PEM file, at least one.
func read(path string) []*x509.Certificate {
	rest, err := os.ReadFile(path)
	if err != nil {
		fail(path, err)
	}
	var certificates []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			fail(path, err)
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		fail(path, errors.New("holds no certificate"))
	}
	return certificates
}

func fail(path string, err error) {
	fmt.Fprintf(os.Stderr, "go: %s: %v\n", path, err)
	os.Exit(1)
}
