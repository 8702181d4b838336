// Command check holds a published log against the Go project's own implementation of its formats
// (golang.org/x/mod/sumdb/note and tlog), which shares no code with Waggle.
//
//	check DIRECTORY
//
// The directory holds
//
//	checkpoint        a signed checkpoint
//	log.vkey          verifier keys, one per line: types 0x01 (log) and 0x04 (cosigner)
//	inclusion.json    [{"index", "size"?, "root"?, "leaf"?, "leafHash", "proof": []}]
//	consistency.json  [{"oldSize", "oldRoot", "newSize", "newRoot", "proof": []}]
//
// with bytes in base64. Size and root of an inclusion are the checkpoint's when left out. The Go module does not know
// cosignatures; those are checked here, by c2sp.org/tlog-cosignature. It prints one line that begins with "ok", or says
// on stderr what failed and exits 1. To build without a network: see packages/protocol/test/transparency/go.test.ts.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type inclusion struct {
	Index    int64    `json:"index"`
	Size     *int64   `json:"size"`
	Root     []byte   `json:"root"`
	Leaf     []byte   `json:"leaf"`
	LeafHash []byte   `json:"leafHash"`
	Proof    [][]byte `json:"proof"`
}

type consistency struct {
	OldSize int64    `json:"oldSize"`
	OldRoot []byte   `json:"oldRoot"`
	NewSize int64    `json:"newSize"`
	NewRoot []byte   `json:"newRoot"`
	Proof   [][]byte `json:"proof"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: check DIRECTORY")
		os.Exit(2)
	}
	summary, err := check(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
	fmt.Println("ok", summary)
}

func check(directory string) (string, error) {
	verifiers, err := readVerifiers(filepath.Join(directory, "log.vkey"))
	if err != nil {
		return "", fmt.Errorf("log.vkey: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(directory, "checkpoint"))
	if err != nil {
		return "", err
	}
	opened, err := note.Open(text, note.VerifierList(verifiers...))
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	origin, tree, err := parseCheckpoint(opened.Text)
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}

	var inclusions []inclusion
	if err := readJSON(filepath.Join(directory, "inclusion.json"), &inclusions); err != nil {
		return "", err
	}
	for i, p := range inclusions {
		if err := checkInclusion(p, tree); err != nil {
			return "", fmt.Errorf("inclusion.json [%d], leaf %d: %w", i, p.Index, err)
		}
	}
	var consistencies []consistency
	if err := readJSON(filepath.Join(directory, "consistency.json"), &consistencies); err != nil {
		return "", err
	}
	for i, p := range consistencies {
		if err := checkConsistency(p, tree); err != nil {
			return "", fmt.Errorf("consistency.json [%d], %d to %d: %w", i, p.OldSize, p.NewSize, err)
		}
	}
	return fmt.Sprintf("%s size=%d signatures=%d unknown=%d inclusions=%d consistencies=%d", origin, tree.N,
		len(opened.Sigs), len(opened.UnverifiedSigs), len(inclusions), len(consistencies)), nil
}

func checkInclusion(p inclusion, tree tlog.Tree) error {
	size, root := tree.N, tree.Hash
	if p.Size != nil {
		size = *p.Size
	}
	if p.Root != nil {
		given, err := toHash(p.Root)
		if err != nil {
			return err
		}
		root = given
	}
	if size == tree.N && root != tree.Hash {
		return errors.New("the root is not the checkpoint's")
	}
	leaf, err := toHash(p.LeafHash)
	if err != nil {
		return err
	}
	if p.Leaf != nil && tlog.RecordHash(p.Leaf) != leaf {
		return errors.New("the leaf does not have that hash")
	}
	proof, err := toHashes(p.Proof)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(proof, size, root, p.Index, leaf)
}

func checkConsistency(p consistency, tree tlog.Tree) error {
	oldRoot, err := toHash(p.OldRoot)
	if err != nil {
		return err
	}
	newRoot, err := toHash(p.NewRoot)
	if err != nil {
		return err
	}
	if p.OldSize == tree.N && oldRoot != tree.Hash || p.NewSize == tree.N && newRoot != tree.Hash {
		return errors.New("the root is not the checkpoint's")
	}
	proof, err := toHashes(p.Proof)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, p.NewSize, newRoot, p.OldSize, oldRoot)
}

func parseCheckpoint(text string) (string, tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[0] == "" || lines[len(lines)-1] != "" {
		return "", tlog.Tree{}, errors.New("expected origin, size and root")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || strconv.FormatInt(size, 10) != lines[1] || size < 0 {
		return "", tlog.Tree{}, fmt.Errorf("expected a tree size, received %q", lines[1])
	}
	root, err := tlog.ParseHash(lines[2])
	return lines[0], tlog.Tree{N: size, Hash: root}, err
}

func toHash(b []byte) (h tlog.Hash, err error) {
	if len(b) != len(h) {
		return h, fmt.Errorf("expected a hash of %d bytes, received %d", len(h), len(b))
	}
	copy(h[:], b)
	return h, nil
}

func toHashes(list [][]byte) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, 0, len(list))
	for _, b := range list {
		h, err := toHash(b)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, h)
	}
	return hashes, nil
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}

func readVerifiers(path string) ([]note.Verifier, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var verifiers []note.Verifier
	for _, line := range strings.Fields(string(text)) {
		verifier, err := newVerifier(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		verifiers = append(verifiers, verifier)
	}
	return verifiers, nil
}

// A cosigner verifies cosignature/v1, which the Go module does not know.
type cosigner struct {
	name string
	id   uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.id }
func (c cosigner) Verify(text, payload []byte) bool {
	if len(payload) != 8+ed25519.SignatureSize {
		return false
	}
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(payload), text)
	return ed25519.Verify(c.key, []byte(message), payload[8:])
}

func newVerifier(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("expected name+id+key")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 4 {
		return note.NewVerifier(vkey)
	}
	digest := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	id := binary.BigEndian.Uint32(digest[:])
	if fmt.Sprintf("%08x", id) != parts[1] {
		return nil, errors.New("the key id is not the key's")
	}
	return cosigner{parts[0], id, key[1:]}, nil
}
