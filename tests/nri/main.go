// The runtime's half of NRI without a runtime: github.com/containerd/nri's adaptation, which containerd links, on any socket.
// It reads events of pods and containers from stdin, one JSON object a line, passes them to the plugins as containerd does, and
// prints for each how long it was held, and the error, if any.
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

// What is asked on stdin.
type order struct {
	// sandbox, create, start, post or stop, as containerd's CRI service relays them.
	Do        string
	Pod       *adaptation.PodSandbox
	Container *adaptation.Container
}

// What is said on stdout.
type line struct {
	Plugins *int   `json:"plugins,omitempty"`
	Did     string `json:"did,omitempty"`
	Pod     string `json:"pod,omitempty"`
	HeldMs  int64  `json:"heldMs"`
	Error   string `json:"error,omitempty"`
}

var out sync.Mutex

func say(l line) {
	out.Lock()
	defer out.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(l); err != nil {
		log.Fatal(err)
	}
}

// Tells how many plugins there are, whenever the adaptation counts them.
type metrics struct{}

func (metrics) RecordPluginInvocation(string, string, error)      {}
func (metrics) RecordPluginLatency(string, string, time.Duration) {}
func (metrics) RecordPluginAdjustments(string, string, *adaptation.ContainerAdjustment, int, int) {
}
func (metrics) UpdatePluginCount(count int) { say(line{Plugins: &count}) }

func main() {
	socket := flag.String("socket", "", "where plugins connect")
	timeout := flag.Duration("timeout", adaptation.DefaultPluginRequestTimeout, "how long a plugin may take to answer")
	required := flag.String("required", "", "a plugin without which no container is created")
	running := flag.Int("running", 0, "so many pods of one container run already")
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
	say(line{Did: "listen"})
	// Orders run side by side, as the kubelet's requests do; that they wait for one another is the adaptation's doing.
	var orders sync.WaitGroup
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			log.Fatal(err)
		}
		orders.Add(1)
		go func() {
			defer orders.Done()
			started := time.Now()
			err := obey(runtime, o)
			l := line{Did: o.Do, Pod: o.Pod.GetName(), HeldMs: time.Since(started).Milliseconds()}
			if err != nil {
				l.Error = err.Error()
			}
			say(l)
		}()
	}
	orders.Wait()
	runtime.Stop()
}

func obey(runtime *adaptation.Adaptation, o order) error {
	// While one of these runs, no plugin is synchronized: internal/cri/server does the same.
	defer runtime.BlockPluginSync().Unblock()
	ctx := context.Background()
	switch o.Do {
	case "sandbox":
		return runtime.RunPodSandbox(ctx, &adaptation.RunPodSandboxRequest{Pod: o.Pod})
	case "create":
		_, err := runtime.CreateContainer(ctx, &adaptation.CreateContainerRequest{Pod: o.Pod, Container: o.Container})
		return err
	case "start":
		return runtime.StartContainer(ctx, &adaptation.StartContainerRequest{Pod: o.Pod, Container: o.Container})
	case "post":
		return runtime.PostStartContainer(ctx, &adaptation.PostStartContainerRequest{Pod: o.Pod, Container: o.Container})
	case "stop":
		_, err := runtime.StopContainer(ctx, &adaptation.StopContainerRequest{Pod: o.Pod, Container: o.Container})
		return err
	}
	return fmt.Errorf("no such order: %q", o.Do)
}

// What runs already. Each pod has some kilobytes, as annotated pods do: beyond a thousand the adaptation has to split them.
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
