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
// with bytes in base64, and may hold
//
//	epochs.json       [{"checkpoint", "policy"}]: earlier checkpoints, each with its tlog-policy
//	tile/             the tiles and entry bundles of the newest, under their names (c2sp.org/tlog-tiles)
//
// Size and root of an inclusion are the checkpoint's when left out. Each checkpoint of epochs.json needs the log and the
// quorum of its policy; from the tiles, the root of the newest is computed again, its consistency with each of them, and
// that the entries are its leaves. The Go module does not know
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
	summary := fmt.Sprintf("%s size=%d signatures=%d unknown=%d inclusions=%d consistencies=%d", origin, tree.N,
		len(opened.Sigs), len(opened.UnverifiedSigs), len(inclusions), len(consistencies))
	if _, err := os.Stat(filepath.Join(directory, "epochs.json")); err != nil {
		return summary, nil
	}
	var epochs []epoch
	if err := readJSON(filepath.Join(directory, "epochs.json"), &epochs); err != nil {
		return "", err
	}
	tiles := tileDirectory(filepath.Join(directory, "tile"))
	if err := checkEpochs(epochs, origin, tree, tiles); err != nil {
		return "", err
	}
	if err := checkEntries(tree, tiles); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s epochs=%d", summary, len(epochs)), nil
}

type epoch struct {
	Checkpoint string `json:"checkpoint"`
	Policy     string `json:"policy"`
}

// checkEpochs holds every checkpoint to its policy, and the tree that the tiles are of to every checkpoint.
func checkEpochs(epochs []epoch, origin string, tree tlog.Tree, tiles tileDirectory) error {
	hashes := tlog.TileHashReader(tree, tiles)
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil || root != tree.Hash {
		return fmt.Errorf("the tiles do not give the root of the checkpoint: %v", err)
	}
	for i, e := range epochs {
		old, err := openByPolicy(e, origin)
		if err != nil {
			return fmt.Errorf("epochs.json [%d]: %w", i, err)
		}
		proof, err := tlog.ProveTree(tree.N, old.N, hashes)
		if err != nil {
			return fmt.Errorf("epochs.json [%d]: %w", i, err)
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash); err != nil {
			return fmt.Errorf("epochs.json [%d], %d to %d: %w", i, old.N, tree.N, err)
		}
	}
	return nil
}

// openByPolicy opens a checkpoint by the lines of its policy: log <vkey>, witness <name> <vkey>, group <name> <n> <names>.
func openByPolicy(e epoch, origin string) (tlog.Tree, error) {
	var verifiers []note.Verifier
	quorum := 0
	for _, line := range strings.Split(e.Policy, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "log", "witness":
			verifier, err := newVerifier(fields[len(fields)-1])
			if err != nil {
				return tlog.Tree{}, fmt.Errorf("policy: %w", err)
			}
			verifiers = append(verifiers, verifier)
		case "group":
			n, err := strconv.Atoi(fields[2])
			if err != nil || n <= (len(fields)-3)/2 {
				return tlog.Tree{}, fmt.Errorf("policy: expected a majority of %d, received %q", len(fields)-3, fields[2])
			}
			quorum = n
		}
	}
	opened, err := note.Open([]byte(e.Checkpoint), note.VerifierList(verifiers...))
	if err != nil {
		return tlog.Tree{}, err
	}
	name, tree, err := parseCheckpoint(opened.Text)
	if err != nil || name != origin {
		return tlog.Tree{}, fmt.Errorf("expected a checkpoint of %s, received %s: %v", origin, name, err)
	}
	logs, cosigners := 0, 0
	for _, sig := range opened.Sigs {
		if sig.Name == origin {
			logs++
		} else {
			cosigners++
		}
	}
	if logs == 0 || quorum == 0 || cosigners < quorum {
		return tlog.Tree{}, fmt.Errorf("expected the log and %d cosigners, received %d and %d", quorum, logs, cosigners)
	}
	return tree, nil
}

// checkEntries reads every entry bundle: its entries are the leaves of the tree.
func checkEntries(tree tlog.Tree, tiles tileDirectory) error {
	hashes := tlog.TileHashReader(tree, tiles)
	for first := int64(0); first < tree.N; first += 1 << tileHeight {
		width := tree.N - first
		if width > 1<<tileHeight {
			width = 1 << tileHeight
		}
		bundle, err := tiles.read("entries", first>>tileHeight, int(width))
		if err != nil {
			return err
		}
		for i := first; i < first+width; i++ {
			if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
				return fmt.Errorf("entry %d is cut", i)
			}
			end := 2 + int(binary.BigEndian.Uint16(bundle))
			leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, i)})
			if err != nil || leaf[0] != tlog.RecordHash(bundle[2:end]) {
				return fmt.Errorf("entry %d is not the leaf: %v", i, err)
			}
			bundle = bundle[end:]
		}
		if len(bundle) > 0 {
			return fmt.Errorf("%d bytes after entry %d", len(bundle), first+width-1)
		}
	}
	return nil
}

const tileHeight = 8

// A tileDirectory has tiles as a log serves them (c2sp.org/tlog-tiles); it is a tlog.TileReader.
type tileDirectory string

func (d tileDirectory) Height() int { return tileHeight }

func (d tileDirectory) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

func (d tileDirectory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, t := range tiles {
		var err error
		if data[i], err = d.read(strconv.Itoa(t.L), t.N, t.W); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (d tileDirectory) read(level string, n int64, width int) ([]byte, error) {
	path := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	if width < 1<<tileHeight {
		path = fmt.Sprintf("%s.p/%d", path, width)
	}
	return os.ReadFile(filepath.Join(string(d), level, path))
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
