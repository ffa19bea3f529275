// The runtime's own half of NRI, without a runtime around it: github.com/containerd/nri's adaptation, which containerd
// links, on a given socket. It reads commands from stdin, one JSON object a line: what happens to a pod or a container.
// It calls the plugins as containerd does, and prints a report: how long they took, and their error, if any.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	validator "github.com/containerd/nri/plugins/default-validator"
)

// A command on stdin.
type command struct {
	// sandbox, create, start, post or stop, as containerd's CRI service relays them.
	Action    string
	Pod       *adaptation.PodSandbox
	Container *adaptation.Container
}

// A report on stdout: the result of a command, or the number of plugins.
type report struct {
	Plugins *int   `json:"plugins,omitempty"`
	Action  string `json:"action,omitempty"`
	Pod     string `json:"pod,omitempty"`
	HeldMs  int64  `json:"heldMs"`
	Error   string `json:"error,omitempty"`
}

var stdout sync.Mutex

func (r report) print() {
	stdout.Lock()
	defer stdout.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		log.Fatal(err)
	}
}

// Reports the number of plugins whenever the adaptation counts them.
type metrics struct{}

func (metrics) RecordPluginInvocation(string, string, error)      {}
func (metrics) RecordPluginLatency(string, string, time.Duration) {}
func (metrics) RecordPluginAdjustments(string, string, *adaptation.ContainerAdjustment, int, int) {
}
func (metrics) UpdatePluginCount(count int) { report{Plugins: &count}.print() }

func main() {
	socket := flag.String("socket", "", "the socket that plugins connect to")
	timeout := flag.Duration("timeout", adaptation.DefaultPluginRequestTimeout, "the time that a plugin has to answer")
	required := flag.String("required", "", "a plugin without which no container is created")
	running := flag.Int("running", 0, "the number of pods, of one container each, that run already")
	flag.Parse()

	// As `default_validator` in containerd's configuration.
	config := &validator.DefaultValidatorConfig{}
	if *required != "" {
		config.Enable = true
		config.RequiredPlugins = strings.Split(*required, ",")
	}
	adaptation.SetPluginRequestTimeout(*timeout)
	none := filepath.Join(filepath.Dir(*socket), "none")
	runtime, err := adaptation.New("containerd", "v2.4.2", synchronize(*running), update,
		adaptation.WithSocketPath(*socket), adaptation.WithPluginPath(none), adaptation.WithPluginConfigPath(none),
		adaptation.WithDefaultValidator(config), adaptation.WithMetrics(metrics{}))
	if err != nil {
		log.Fatal(err)
	}
	if err := runtime.Start(); err != nil {
		log.Fatal(err)
	}
	report{Action: "listen"}.print()
	// Commands run concurrently, as the kubelet's requests do. The adaptation makes them wait for each other.
	var commands sync.WaitGroup
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			log.Fatal(err)
		}
		commands.Add(1)
		go func() {
			defer commands.Done()
			started := time.Now()
			err := c.run(runtime)
			r := report{Action: c.Action, Pod: c.Pod.GetName(), HeldMs: time.Since(started).Milliseconds()}
			if err != nil {
				r.Error = err.Error()
			}
			r.print()
		}()
	}
	commands.Wait()
	runtime.Stop()
}

func (c command) run(runtime *adaptation.Adaptation) error {
	// No plugin is synchronized while one of these runs: internal/cri/server does the same.
	defer runtime.BlockPluginSync().Unblock()
	ctx := context.Background()
	switch c.Action {
	case "sandbox":
		return runtime.RunPodSandbox(ctx, &adaptation.RunPodSandboxRequest{Pod: c.Pod})
	case "create":
		_, err := runtime.CreateContainer(ctx, &adaptation.CreateContainerRequest{Pod: c.Pod, Container: c.Container})
		return err
	case "start":
		return runtime.StartContainer(ctx, &adaptation.StartContainerRequest{Pod: c.Pod, Container: c.Container})
	case "post":
		return runtime.PostStartContainer(ctx, &adaptation.PostStartContainerRequest{Pod: c.Pod, Container: c.Container})
	case "stop":
		_, err := runtime.StopContainer(ctx, &adaptation.StopContainerRequest{Pod: c.Pod, Container: c.Container})
		return err
	}
	return fmt.Errorf("no such action: %q", c.Action)
}

// Synchronizes plugins with pods that run already. Each has some kilobytes, as annotated pods do: the adaptation has to
// split more than a thousand of them into several messages.
func synchronize(running int) adaptation.SyncFn {
	return func(ctx context.Context, sync adaptation.SyncCB) error {
		var pods []*adaptation.PodSandbox
		var containers []*adaptation.Container
		for i := range running {
			id := fmt.Sprintf("%064x", i)
			parent := fmt.Sprintf("/kubepods/pod-%d", i)
			pods = append(pods, &adaptation.PodSandbox{
				Id: "pod-" + id, Name: fmt.Sprintf("running-%d", i), Uid: fmt.Sprintf("uid-%d", i), Namespace: "default",
				Annotations: map[string]string{"long": strings.Repeat("x", 4096)},
				Linux:       &adaptation.LinuxPodSandbox{CgroupParent: parent},
			})
			containers = append(containers, &adaptation.Container{
				Id: id, PodSandboxId: "pod-" + id, Name: "main", State: adaptation.ContainerState_CONTAINER_RUNNING,
				Linux: &adaptation.LinuxContainer{CgroupsPath: parent + "/" + id},
			})
		}
		_, err := sync(ctx, pods, containers)
		return err
	}
}

func update(context.Context, []*adaptation.ContainerUpdate) ([]*adaptation.ContainerUpdate, error) {
	return nil, nil
}
