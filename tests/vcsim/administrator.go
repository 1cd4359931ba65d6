package main

// What administrators do to a vCenter and govmomi's simulator leaves out, over the same SOAP endpoint:
//
//	ReconfigureComputeResource_Task with drsConfig   DRS on or off; off deletes every resource pool of the cluster
//	MoveIntoResourcePool                             machines and pools change their pool
//	EnterMaintenanceMode_Task                        runs while machines on the host are powered on

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	envelope = `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope` +
		` xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>%s</soapenv:Body></soapenv:Envelope>`
	lookAgain = 50 * time.Millisecond
)

var (
	methodIn = regexp.MustCompile(`Body>\s*<(?:\w+:)?(\w+)`)
	refsIn   = regexp.MustCompile(`<(_this|list)[^>]* type="(\w+)"[^>]*>([^<]+)<`)
	drsIn    = regexp.MustCompile(`(?s)<drsConfig>.*?<enabled>(true|false)</enabled>`)
)

// administrate answers what the simulator does not know, and passes on the rest.
func administrate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		method := methodIn.FindSubmatch(body)
		if method == nil {
			next.ServeHTTP(w, r)
			return
		}
		switch string(method[1]) {
		case "MoveIntoResourcePool":
			moveIntoPool(refs(body, "_this")[0], refs(body, "list"))
			fmt.Fprintf(w, envelope, `<MoveIntoResourcePoolResponse xmlns="urn:vim25"/>`)
		case "EnterMaintenanceMode_Task":
			task := enterMaintenance(refs(body, "_this")[0])
			fmt.Fprintf(w, envelope, `<EnterMaintenanceMode_TaskResponse xmlns="urn:vim25"><returnval type="Task">`+
				task.Value+`</returnval></EnterMaintenanceMode_TaskResponse>`)
		case "ReconfigureComputeResource_Task":
			next.ServeHTTP(w, r)
			if wish := drsIn.FindSubmatch(body); wish != nil {
				switchDrs(refs(body, "_this")[0], string(wish[1]) == "true")
			}
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func refs(body []byte, tag string) []types.ManagedObjectReference {
	var found []types.ManagedObjectReference
	for _, each := range refsIn.FindAllSubmatch(body, -1) {
		if string(each[1]) == tag {
			found = append(found, types.ManagedObjectReference{Type: string(each[2]), Value: string(each[3])})
		}
	}
	return found
}

// moveIntoPool puts machines and pools into a pool; what each pool says of what is in it is kept right, too.
func moveIntoPool(target types.ManagedObjectReference, moved []types.ManagedObjectReference) {
	pool := simulator.Map.Get(target).(*simulator.ResourcePool)
	for _, ref := range moved {
		if child, ok := simulator.Map.Get(ref).(*simulator.ResourcePool); ok {
			parent := simulator.Map.Get(*child.Parent).(*simulator.ResourcePool)
			simulator.Map.RemoveReference(parent, &parent.ResourcePool.ResourcePool, ref)
			simulator.Map.WithLock(child, func() {
				simulator.Map.Update(child, []types.PropertyChange{{Name: "parent", Val: &target}})
			})
			simulator.Map.AppendReference(pool, &pool.ResourcePool.ResourcePool, ref)
			continue
		}
		vm, ok := simulator.Map.Get(ref).(*simulator.VirtualMachine)
		if !ok {
			continue
		}
		for _, other := range simulator.Map.All("ResourcePool") {
			old := other.(*simulator.ResourcePool)
			simulator.Map.RemoveReference(old, &old.Vm, ref)
		}
		simulator.Map.WithLock(vm, func() {
			simulator.Map.Update(vm, []types.PropertyChange{{Name: "resourcePool", Val: &target}})
		})
		simulator.Map.AppendReference(pool, &pool.Vm, ref)
	}
}

// switchDrs also does what vCenter does with it: without DRS a cluster has no pool but its own.
func switchDrs(ref types.ManagedObjectReference, enabled bool) {
	cluster := simulator.Map.Get(ref).(*simulator.ClusterComputeResource)
	simulator.Map.WithLock(cluster, func() {
		cluster.ConfigurationEx.(*types.ClusterConfigInfoEx).DrsConfig.Enabled = types.NewBool(enabled)
	})
	if enabled {
		return
	}
	root := simulator.Map.Get(*cluster.ResourcePool).(*simulator.ResourcePool)
	for len(root.ResourcePool.ResourcePool) > 0 {
		child := root.ResourcePool.ResourcePool[0]
		var inside []types.ManagedObjectReference
		for _, each := range simulator.Map.All("VirtualMachine") {
			vm := each.(*simulator.VirtualMachine)
			if vm.ResourcePool != nil && *vm.ResourcePool == child {
				inside = append(inside, vm.Self)
			}
		}
		moveIntoPool(root.Self, inside)
		switch pool := simulator.Map.Get(child).(type) {
		case *simulator.ResourcePool:
			pool.DestroyTask(&types.Destroy_Task{This: child})
		case *simulator.VirtualApp:
			pool.DestroyTask(&types.Destroy_Task{This: child})
		}
	}
}

// enterMaintenance starts a task that ends when nothing is powered on any more on the host.
func enterMaintenance(ref types.ManagedObjectReference) types.ManagedObjectReference {
	host := simulator.Map.Get(ref).(*simulator.HostSystem)
	task := simulator.CreateTask(host, "enterMaintenanceMode", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		for isBusy(ref) {
			time.Sleep(lookAgain)
		}
		simulator.Map.WithLock(host, func() { host.Runtime.InMaintenanceMode = true })
		return nil, nil
	})
	simulator.Map.WithLock(host, func() {
		simulator.Map.Update(host, []types.PropertyChange{
			{Name: "recentTask", Val: []types.ManagedObjectReference{task.Self}},
		})
	})
	go task.Run()
	return task.Self
}

func isBusy(host types.ManagedObjectReference) bool {
	for _, each := range simulator.Map.All("VirtualMachine") {
		vm := each.(*simulator.VirtualMachine)
		if vm.Runtime.Host != nil && *vm.Runtime.Host == host &&
			vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
			return true
		}
	}
	return false
}
