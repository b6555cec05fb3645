module public_addresses

go 1.23

require github.com/multiformats/go-multiaddr v0.15.0
