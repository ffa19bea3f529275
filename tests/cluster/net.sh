# shellcheck shell=bash disable=SC2154 # out, run, netns and the like are from lib.sh, which cluster.sh sources first
# The cluster's network: one namespace with a bridge that has the nodes' addresses. No packet leaves it. Addresses are from
# 198.18.0.0/15, which RFC 2544 reserves for tests.

net_up() {
  ip netns add "$netns"
  in_netns ip link set lo up
  in_netns ip link add nodes type bridge
  in_netns ip addr add "$api_ip/24" dev nodes
  in_netns ip link set nodes up
  # By default the kubelet and the API server take the address of the default route's interface.
  in_netns ip route add default via "$api_ip" dev nodes
  in_netns sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
}

net_down() {
  if ip netns list | grep -qw "$netns"; then ip netns delete "$netns"; fi
}
