// A stand-in for crictl that knows only what kubeadm below 1.31 asks of it: info, inspecti, pull, pods -q, stopp, rmp.
// It speaks CRI v1alpha2 as the kubelet of that time does. For tests: real images bring the real crictl.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1alpha2"
)

const usage = "usage: crictl -r SOCKET info | inspecti IMAGE | pull IMAGE | pods -q | stopp POD | rmp POD (stand-in of kubenode's lab)"

func main() {
	if len(os.Args) < 4 || os.Args[1] != "-r" {
		fail(usage)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	socket := strings.TrimPrefix(os.Args[2], "unix://")
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 30 * time.Second}).DialContext(ctx, "unix", address)
	}
	connection, err := grpc.DialContext(ctx, socket, grpc.WithInsecure(), grpc.WithContextDialer(dial))
	check(err)
	runtime, images := cri.NewRuntimeServiceClient(connection), cri.NewImageServiceClient(connection)
	command, argument := os.Args[3], ""
	if len(os.Args) > 4 {
		argument = os.Args[4]
	}
	spec := &cri.ImageSpec{Image: argument}
	switch command {
	case "info":
		status, err := runtime.Status(ctx, &cri.StatusRequest{})
		check(err)
		fmt.Println(status.Status.String())
	case "inspecti":
		found, err := images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: spec})
		check(err)
		if found.Image == nil {
			fail("no such image " + argument)
		}
		fmt.Println(found.Image.Id)
	case "pull":
		// The lab has no registry: its images were imported before. What is here is not asked for again.
		if found, err := images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: spec}); err == nil && found.Image != nil {
			fmt.Println(found.Image.Id)
			return
		}
		pulled, err := images.PullImage(ctx, &cri.PullImageRequest{Image: spec})
		check(err)
		fmt.Println(pulled.ImageRef)
	case "pods":
		pods, err := runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
		check(err)
		for _, pod := range pods.Items {
			fmt.Println(pod.Id)
		}
	case "stopp":
		_, err := runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: argument})
		check(err)
	case "rmp":
		_, err := runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: argument})
		check(err)
	default:
		fail(usage)
	}
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(1)
}
