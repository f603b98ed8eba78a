// Prints every certificate of step-ca's badger database, base64 of its DER, one a line: stepdb [-truncate] FOLDER
//
// It opens the database as step-ca 0.30 does. -truncate also takes one whose value log ends in the middle of an entry,
// by cutting it off, as badger's message advises; the database stays changed.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"flag"
	"fmt"
	"os"

	"github.com/dgraph-io/badger/v2"
)

func main() {
	truncate := flag.Bool("truncate", false, "cut off what is incomplete")
	flag.Parse()
	if err := dump(flag.Arg(0), *truncate); err != nil {
		fmt.Fprintln(os.Stderr, "stepdb:", err)
		os.Exit(1)
	}
}

func dump(folder string, truncate bool) error {
	db, err := badger.Open(badger.DefaultOptions(folder).WithTruncate(truncate).WithLogger(nil))
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	err = db.View(func(txn *badger.Txn) error {
		// The table's name with its length before it; then come the key's.
		table := "x509_certs"
		prefix := append(binary.LittleEndian.AppendUint16(nil, uint16(len(table))), table...)
		rows := txn.NewIterator(badger.DefaultIteratorOptions)
		defer rows.Close()
		for rows.Seek(prefix); rows.ValidForPrefix(prefix); rows.Next() {
			der, err := rows.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			// The table itself has an empty row.
			if len(der) > 0 {
				_, _ = fmt.Fprintln(out, base64.StdEncoding.EncodeToString(der))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return db.Close()
}
