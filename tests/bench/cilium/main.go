// The second reference of tests/bench: does with cilium/ebpf what libbpf.c does with libbpf, by the same lines on standard
// input.
//
//	cilium OBJECT DIRECTORY
//
// Reads lines. "+ NAME CGROUP..." loads OBJECT, attaches its program to each CGROUP, pins program, map and links below
// DIRECTORY/NAME on bpffs, reads from the pins what the agent reports, and prints the nanoseconds. "- NAME" undoes it.
// "= COUNT" loads and closes OBJECT so often, and prints the nanoseconds that the process itself worked, without the
// kernel.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// The directories of one program, each after the one that it is in.
var directories = []string{"", "programs", "maps", "links", "links/program"}

const (
	programPin = "programs/program"
	mapPin     = "maps/map"
)

func linkPin(i int) string { return "links/program/" + strconv.Itoa(i) }

func apply(object []byte, directory string, cgroups []string) error {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return err
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return err
	}
	defer collection.Close()
	program, err := only(collection.Programs)
	if err != nil {
		return err
	}
	counts, err := only(collection.Maps)
	if err != nil {
		return err
	}
	links := make([]link.Link, len(cgroups))
	for i, cgroup := range cgroups {
		options := link.CgroupOptions{Path: cgroup, Attach: ebpf.AttachCGroupSockOps, Program: program}
		if links[i], err = link.AttachCgroup(options); err != nil {
			return err
		}
		defer links[i].Close()
	}
	for _, name := range directories {
		if err := os.Mkdir(filepath.Join(directory, name), 0o700); err != nil {
			return err
		}
	}
	if err := program.Pin(filepath.Join(directory, programPin)); err != nil {
		return err
	}
	if err := counts.Pin(filepath.Join(directory, mapPin)); err != nil {
		return err
	}
	for i := range links {
		if err := links[i].Pin(filepath.Join(directory, linkPin(i))); err != nil {
			return err
		}
	}
	id, err := readBack(directory)
	for i := 0; err == nil && i < len(cgroups); i++ {
		err = readBackLink(filepath.Join(directory, linkPin(i)), cgroups[i], id)
	}
	return err
}

// Returns the one value of a map that must have just one.
func only[T any](all map[string]T) (one T, err error) {
	if len(all) != 1 {
		return one, fmt.Errorf("the object has %d, not one", len(all))
	}
	for _, one = range all {
	}
	return one, nil
}

// Reads what the kernel says of program and map by their pins, and returns the program's ID.
func readBack(directory string) (ebpf.ProgramID, error) {
	program, err := ebpf.LoadPinnedProgram(filepath.Join(directory, programPin), nil)
	if err != nil {
		return 0, err
	}
	defer program.Close()
	counts, err := ebpf.LoadPinnedMap(filepath.Join(directory, mapPin), nil)
	if err != nil {
		return 0, err
	}
	defer counts.Close()
	programInfo, err := program.Info()
	if err != nil {
		return 0, err
	}
	mapInfo, err := counts.Info()
	if err != nil {
		return 0, err
	}
	id, _ := programInfo.ID()
	mapID, _ := mapInfo.ID()
	if used, ok := programInfo.MapIDs(); !ok || !slices.Equal(used, []ebpf.MapID{mapID}) {
		return 0, fmt.Errorf("program %d uses maps %v, not %d", id, used, mapID)
	}
	ofProgram, _ := programInfo.Memlock()
	ofMap, _ := mapInfo.Memlock()
	if ofProgram == 0 || ofMap == 0 {
		return 0, errors.New("memory of program and map is unknown")
	}
	return id, nil
}

// Compares what the kernel says of a link by its pin, and the cgroup's own query, with the program.
func readBackLink(pin, cgroup string, id ebpf.ProgramID) error {
	pinned, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return err
	}
	defer pinned.Close()
	info, err := pinned.Info()
	if err != nil {
		return err
	}
	directory, err := os.Open(cgroup)
	if err != nil {
		return err
	}
	defer directory.Close()
	options := link.QueryOptions{Target: int(directory.Fd()), Attach: ebpf.AttachCGroupSockOps}
	attached, err := link.QueryPrograms(options)
	if err != nil {
		return err
	}
	listed := slices.ContainsFunc(attached.Programs, func(program link.AttachedProgram) bool { return program.ID == id })
	if info.Program != id || !listed {
		return fmt.Errorf("%s: program %d is not attached", cgroup, id)
	}
	return nil
}

// Removes the pins; a link's descriptor is the last to go, so that the kernel detaches before it returns.
func undo(directory string) error {
	for i := 0; ; i++ {
		pin := filepath.Join(directory, linkPin(i))
		pinned, err := link.LoadPinnedLink(pin, nil)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		if err := errors.Join(os.Remove(pin), pinned.Close()); err != nil {
			return err
		}
	}
	for _, pin := range []string{mapPin, programPin} {
		if err := os.Remove(filepath.Join(directory, pin)); err != nil {
			return err
		}
	}
	for _, name := range slices.Backward(directories) {
		if err := os.Remove(filepath.Join(directory, name)); err != nil {
			return err
		}
	}
	return nil
}

// Returns the user time that loading and closing takes, count times.
func loadOnly(object []byte, count int) (time.Duration, error) {
	before, err := userTime()
	if err != nil {
		return 0, err
	}
	for range count {
		spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
		if err != nil {
			return 0, err
		}
		collection, err := ebpf.NewCollection(spec)
		if err != nil {
			return 0, err
		}
		collection.Close()
	}
	after, err := userTime()
	return after - before, err
}

// Returns the time that all threads worked outside of the kernel.
func userTime() (time.Duration, error) {
	var usage syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano()), err
}

func run(object, directory string) error {
	code, err := os.ReadFile(object)
	if err != nil {
		return err
	}
	if err := os.Mkdir(directory, 0o700); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			return fmt.Errorf("line %q", lines.Text())
		}
		at := filepath.Join(directory, words[1])
		start := time.Now()
		took := func() time.Duration { return time.Since(start) }
		switch words[0] {
		case "+":
			err = apply(code, at, words[2:])
		case "=":
			var count int
			var user time.Duration
			if count, err = strconv.Atoi(words[1]); err == nil {
				user, err = loadOnly(code, count)
			}
			took = func() time.Duration { return user }
		default:
			err = undo(at)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		fmt.Println(took().Nanoseconds())
	}
	return errors.Join(lines.Err(), os.Remove(directory))
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: cilium OBJECT DIRECTORY")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "cilium/ebpf:", err)
		os.Exit(1)
	}
}
