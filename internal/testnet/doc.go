// Package testnet gives tests a machine and a network of their own: namespaces of Linux
// that belong to this process and end with it.
//
// Main, called by a package's TestMain, runs all its tests in fresh namespaces, as a
// root of their own. It needs no privileges where the kernel gives user namespaces to
// everybody. Such tests share nothing with the machine that two runs could want at once:
// neither a network and its ports, nor /run. So several runs of a package can go on at the
// same time, and the kernel removes what a killed run leaves.
//
// A Host is one host of a network that a test builds: a network namespace without a
// name. Link connects two; IP sets up anything else in the language of ip(8):
//
//	func TestMain(m *testing.M) { testnet.Main(m) }
//
//	func TestReach(t *testing.T) {
//		client, server := testnet.New(t, "client"), testnet.New(t, "server")
//		require.NoError(t, testnet.Link(client, "eth0", server, "eth0"))
//		require.NoError(t, client.IP("addr add 192.0.2.1/24 dev eth0"))
//		require.NoError(t, server.IP("addr add 192.0.2.2/24 dev eth0"))
//		listener, err := server.Listen("192.0.2.2:80")
//		...
//		conn, err := client.Dial(nil, "192.0.2.2:80")
//
// FreePort and WriteUrgent are for tests of servers, in whatever network.
//
// It needs the programs ip (Debian: iproute2), nsenter, unshare and mount (util-linux,
// mount).
package testnet
