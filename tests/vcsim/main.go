// Command vcsim is the vCenter of Tides' tests: govmomi's simulator (Debian: golang-github-vmware-govmomi-dev)
// with doors for what a test must decide, namely how busy hosts and machines are and what their counters say.
//
//	POST /lab/host {"host":"host-21","cpuMhz":2000,"memMb":3000}     summary.quickStats of a host
//	POST /lab/vm   {"vm":"vm-57","cpuMhz":300,"memMb":512}           summary.quickStats of a machine
//	POST /lab/connection {"host":"host-21","state":"notResponding"}  as vCenter shows a host that it lost
//	POST /lab/metal {"host":"host-21","cores":16,"memMb":65536,"nodes":2,"gpus":["A100"]}  what a host is made of
//	POST /lab/perf {"entity":"host-21","counters":{"2":9000}}        QueryPerf answers these values, constantly
//	POST /lab/ahead {"seconds":20}                                   QueryPerf's times run ahead by so much more
//
// What administrators do, and the simulator does not know, is in administrator.go.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	_ "github.com/vmware/govmomi/pbm/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator"
)

// perf answers QueryPerf with the values that were set, in place of the recorded series.
// The simulator's type must be embedded by value and first: the property collector digs for Field(0) structs
// (a pointer makes reads of perfCounter panic).
type perf struct {
	simulator.PerformanceManager
	mu     sync.RWMutex
	set    map[string]map[int32]int64
	other  int64 // what a counter says that nobody has set; 0: the recorded series
	spread int64 // how far that differs by entity and counter
	ahead  time.Duration
}

// unset is what a counter says that nobody has set: always the same, and with a spread another one each.
func (p *perf) unset(entity string, counter int32) int64 {
	if p.other == 0 || p.spread == 0 {
		return p.other
	}
	sum := fnv.New32a()
	fmt.Fprintf(sum, "%s/%d", entity, counter)
	return p.other + int64(sum.Sum32())%p.spread
}

func (p *perf) QueryPerf(ctx *simulator.Context, req *types.QueryPerf) soap.HasFault {
	res := p.PerformanceManager.QueryPerf(ctx, req)
	body, ok := res.(*methods.QueryPerfBody)
	if !ok || body.Res == nil {
		return res
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, found := range body.Res.Returnval {
		if metric, ok := found.(*types.PerfEntityMetric); ok {
			p.override(metric, p.set[metric.Entity.Value])
			for i := range metric.SampleInfo {
				metric.SampleInfo[i].Timestamp = metric.SampleInfo[i].Timestamp.Add(p.ahead)
			}
		}
	}
	return res
}

func (p *perf) override(metric *types.PerfEntityMetric, values map[int32]int64) {
	for _, found := range metric.Value {
		series, ok := found.(*types.PerfMetricIntSeries)
		if !ok {
			continue
		}
		value, ok := values[series.Id.CounterId]
		if !ok {
			value = p.unset(metric.Entity.Value, series.Id.CounterId)
		}
		if ok || value > 0 { // a 0 is left out of the answer, since the encoder omits it: such a series is empty
			for i := range series.Value {
				series.Value[i] = value
			}
		}
	}
}

// door decodes the JSON body of a POST into a new T and hands it to act, whose error is a 404.
func door[T any](mux *http.ServeMux, path string, act func(T) error) {
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		var wish T
		if err := json.NewDecoder(r.Body).Decode(&wish); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := act(wish); err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
		}
	})
}

func find[T mo.Reference](kind, value string) (T, error) {
	found, ok := simulator.Map.Get(types.ManagedObjectReference{Type: kind, Value: value}).(T)
	if !ok {
		return found, fmt.Errorf("no %s %q", kind, value)
	}
	return found, nil
}

func show(object mo.Reference, stats types.AnyType) {
	simulator.Map.Update(object, []types.PropertyChange{{Name: "summary.quickStats", Val: stats}})
}

func openDoors(mux *http.ServeMux, counters *perf) {
	type load struct {
		Host, Vm      string
		CpuMhz, MemMb int32
	}
	door(mux, "/lab/host", func(wish load) error {
		host, err := find[*simulator.HostSystem]("HostSystem", wish.Host)
		if err != nil {
			return err
		}
		simulator.Map.WithLock(host, func() {
			stats := host.Summary.QuickStats
			stats.OverallCpuUsage, stats.OverallMemoryUsage = wish.CpuMhz, wish.MemMb
			show(host, stats)
		})
		return nil
	})
	door(mux, "/lab/vm", func(wish load) error {
		vm, err := find[*simulator.VirtualMachine]("VirtualMachine", wish.Vm)
		if err != nil {
			return err
		}
		simulator.Map.WithLock(vm, func() {
			stats := vm.Summary.QuickStats
			stats.OverallCpuUsage, stats.GuestMemoryUsage = wish.CpuMhz, wish.MemMb
			show(vm, stats)
		})
		return nil
	})
	door(mux, "/lab/connection", func(wish struct{ Host, State string }) error {
		host, err := find[*simulator.HostSystem]("HostSystem", wish.Host)
		if err != nil {
			return err
		}
		simulator.Map.WithLock(host, func() {
			host.Runtime.ConnectionState = types.HostSystemConnectionState(wish.State)
		})
		return nil
	})
	door(mux, "/lab/metal", setMetal)
	type series struct {
		Entity   string
		Counters map[int32]int64
	}
	door(mux, "/lab/perf", func(wish series) error {
		counters.mu.Lock()
		defer counters.mu.Unlock()
		counters.set[wish.Entity] = wish.Counters
		return nil
	})
	door(mux, "/lab/ahead", func(wish struct{ Seconds int }) error {
		counters.mu.Lock()
		defer counters.mu.Unlock()
		counters.ahead += time.Duration(wish.Seconds) * time.Second
		return nil
	})
}

type metal struct {
	Host         string
	Cores, Nodes int32
	MemMb        int64
	Gpus         []string
}

// setMetal gives a host cores, memory, NUMA nodes and GPUs as a list of PCI devices shows them; what it was made of
// is shared by all hosts, so it is copied first.
func setMetal(wish metal) error {
	host, err := find[*simulator.HostSystem]("HostSystem", wish.Host)
	if err != nil {
		return err
	}
	simulator.Map.WithLock(host, func() {
		summary, hardware := *host.Summary.Hardware, *host.Hardware
		summary.NumCpuCores, summary.NumCpuThreads = int16(wish.Cores), int16(2*wish.Cores)
		summary.MemorySize = wish.MemMb << 20
		hardware.CpuInfo.NumCpuCores, hardware.CpuInfo.NumCpuThreads = int16(wish.Cores), int16(2*wish.Cores)
		hardware.MemorySize = summary.MemorySize
		hardware.NumaInfo = &types.HostNumaInfo{Type: "NUMA", NumNodes: wish.Nodes}
		devices := hardware.PciDevice
		hardware.PciDevice = nil
		for _, device := range devices {
			if device.VendorId != 0x10de {
				hardware.PciDevice = append(hardware.PciDevice, device)
			}
		}
		for i, name := range wish.Gpus {
			hardware.PciDevice = append(hardware.PciDevice, types.HostPciDevice{
				Id: fmt.Sprintf("0000:%02x:00.0", 0x40+i), ClassId: 0x0302, Bus: byte(0x40 + i),
				VendorId: 0x10de, VendorName: "NVIDIA Corporation", DeviceName: name,
			})
		}
		host.Summary.Hardware, host.Hardware = &summary, &hardware
	})
	return nil
}

type options struct {
	esx, tls                                         bool
	load, methodDelay, listen, user, pass, cert, key string
	idle                                             time.Duration
	perfDefault, perfSpread                          int64
}

// parse reads the flags into a model. -esx keeps only what a single host can have.
func parse() (*simulator.Model, options) {
	var o options
	m := simulator.VPX()
	flag.IntVar(&m.Datacenter, "dc", m.Datacenter, "datacenters")
	flag.IntVar(&m.Cluster, "cluster", m.Cluster, "clusters per datacenter")
	flag.IntVar(&m.ClusterHost, "host", m.ClusterHost, "hosts per cluster")
	flag.IntVar(&m.Host, "standalone-host", m.Host, "stand-alone hosts")
	flag.IntVar(&m.Datastore, "ds", m.Datastore, "datastores")
	flag.IntVar(&m.Machine, "vm", m.Machine, "machines per resource pool")
	flag.IntVar(&m.Pool, "pool", m.Pool, "resource pools per compute resource")
	flag.BoolVar(&m.Autostart, "autostart", m.Autostart, "power machines on")
	flag.IntVar(&m.DelayConfig.Delay, "delay", 0, "milliseconds on every method")
	flag.Float64Var(&m.DelayConfig.DelayJitter, "delay-jitter", 0, "coefficient of variation of the delays")
	flag.StringVar(&o.methodDelay, "method-delay", "", "Method:milliseconds,...")
	flag.BoolVar(&o.esx, "esx", false, "one ESXi host in place of a vCenter")
	flag.StringVar(&o.load, "load", "", "folder of a saved inventory (govc object.save)")
	flag.StringVar(&o.listen, "l", "127.0.0.1:8989", "address to listen on")
	flag.StringVar(&o.user, "username", "", "the only user; empty: any user with any password")
	flag.StringVar(&o.pass, "password", "", "the user's password")
	flag.BoolVar(&o.tls, "tls", true, "serve TLS")
	flag.StringVar(&o.cert, "tlscert", "", "certificate file (PEM); without it, a built-in one")
	flag.StringVar(&o.key, "tlskey", "", "key file of the certificate (PEM)")
	flag.DurationVar(&o.idle, "session-idle", 0, "expire idle sessions after this time")
	flag.Int64Var(&o.perfDefault, "perf-default", 0, "what unset counters say; 0: recorded noise")
	flag.Int64Var(&o.perfSpread, "perf-spread", 0, "how far -perf-default differs by entity and counter")
	flag.Parse()
	if o.esx {
		esx := simulator.ESX()
		esx.Autostart, esx.Machine, esx.Datastore, esx.DelayConfig = m.Autostart, m.Machine, m.Datastore, m.DelayConfig
		m = esx
	}
	return m, o
}

func methodDelays(text string) (map[string]int, error) {
	delays := map[string]int{}
	for _, item := range strings.Split(text, ",") {
		if item == "" {
			continue
		}
		name, value, _ := strings.Cut(item, ":")
		milliseconds, err := strconv.Atoi(value)
		if err != nil {
			return nil, fmt.Errorf("-method-delay %q: %w", item, err)
		}
		delays[name] = milliseconds
	}
	return delays, nil
}

func tlsConfig(o options) (*tls.Config, error) {
	if o.cert == "" {
		return new(tls.Config), nil
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	return &tls.Config{Certificates: []tls.Certificate{pair}}, err
}

func run() error {
	m, o := parse()
	delays, err := methodDelays(o.methodDelay)
	if err != nil {
		return err
	}
	m.DelayConfig.MethodDelay = delays
	simulator.SessionIdleTimeout = o.idle
	if o.load == "" {
		err = m.Create()
	} else {
		err = m.Load(o.load)
	}
	if err != nil {
		return err
	}
	defer m.Remove()

	manager := simulator.Map.Get(*m.ServiceContent.PerfManager).(*simulator.PerformanceManager)
	counters := &perf{PerformanceManager: *manager, set: map[string]map[int32]int64{}, other: o.perfDefault, spread: o.perfSpread}
	simulator.Map.Put(counters)

	m.Service.RegisterEndpoints = true
	m.Service.Listen = &url.URL{Host: o.listen}
	if o.user != "" {
		m.Service.Listen.User = url.UserPassword(o.user, o.pass)
	}
	if o.tls {
		if m.Service.TLS, err = tlsConfig(o); err != nil {
			return err
		}
	}
	mux := http.NewServeMux()
	openDoors(mux, counters)
	m.Service.ServeMux = mux
	server := m.Service.NewServer()
	server.Config.Handler = administrate(server.Config.Handler)
	defer server.Close()
	fmt.Printf("ready: %s\n", server.URL.Redacted())

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
	return nil
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
