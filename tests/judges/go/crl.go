package main

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"os"
	"slices"
)

// judgeList judges a revocation list: judge crl ISSUER.pem LIST.der [CERT.pem…]
//
// Prints its number, and for each certificate whether it is on it. A certificate whose distribution points are not those
// of the list's issuingDistributionPoint is an error.
func judgeList(arguments []string) error {
	issuer := read(arguments[0])[0]
	der, err := os.ReadFile(arguments[1])
	if err != nil {
		return err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		return err
	}
	if !list.NextUpdate.After(list.ThisUpdate) {
		return errors.New("nextUpdate is not after thisUpdate")
	}
	urls, err := distributionPoints(list)
	if err != nil {
		return err
	}
	fmt.Printf("number %d, %d certificates\n", list.Number, len(list.RevokedCertificateEntries))
	for _, path := range arguments[2:] {
		certificate := read(path)[0]
		inScope := func(url string) bool { return slices.Contains(certificate.CRLDistributionPoints, url) }
		if len(urls) > 0 && !slices.ContainsFunc(urls, inScope) {
			return fmt.Errorf("%s: its distribution points %q are not the list's %q", path,
				certificate.CRLDistributionPoints, urls)
		}
		state := "good"
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(certificate.SerialNumber) == 0 {
				state = fmt.Sprintf("revoked %d", entry.ReasonCode)
			}
		}
		fmt.Printf("%s: %s\n", path, state)
	}
	return nil
}

// RFC 5280 section 5.2.5.
type issuingDistributionPoint struct {
	DistributionPoint struct {
		FullName []asn1.RawValue `asn1:"optional,tag:0"`
	} `asn1:"optional,tag:0"`
	OnlyUserCerts bool `asn1:"optional,tag:1"`
}

func distributionPoints(list *x509.RevocationList) ([]string, error) {
	for _, extension := range list.Extensions {
		if !extension.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 28}) {
			continue
		}
		var point issuingDistributionPoint
		if rest, err := asn1.Unmarshal(extension.Value, &point); err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("its issuingDistributionPoint cannot be read: %w", err)
		}
		if !extension.Critical || !point.OnlyUserCerts {
			return nil, errors.New("its issuingDistributionPoint is not critical, or not for end entities alone")
		}
		var urls []string
		for _, name := range point.DistributionPoint.FullName {
			urls = append(urls, string(name.Bytes))
		}
		return urls, nil
	}
	return nil, errors.New("it has no issuingDistributionPoint")
}
