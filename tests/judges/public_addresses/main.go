// Prints each address that go-libp2p does not take for public.
package main

import (
	"fmt"
	"net"
	"os"

	manet "github.com/multiformats/go-multiaddr/net"
)

func main() {
	for _, text := range os.Args[1:] {
		address, err := manet.FromIP(net.ParseIP(text))
		if err != nil {
			panic(err)
		}
		if !manet.IsPublicAddr(address) {
			fmt.Println(text)
		}
	}
}
