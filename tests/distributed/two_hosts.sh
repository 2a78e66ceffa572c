#!/bin/bash
# Runs a program in two processes on two hosts of this machine: network namespaces with a link between
# them, of 1 Gbit/s and 2 ms there and back where the kernel has the traffic shaper netem. Needs root,
# iproute2 and Open MPI.
#
#   tests/distributed/two_hosts.sh bazel-bin/benchmarks/scaling --model=vgg
#   RATE=10gbit DELAY=50us tests/distributed/two_hosts.sh bazel-bin/benchmarks/scaling --model=lenet
set -euo pipefail

(($# > 0)) || { sed -n 's/^# \{0,1\}//p' "$0" >&2; exit 2; }
((EUID == 0)) || { echo "two_hosts.sh: needs root" >&2; exit 1; }
rate=${RATE:-1gbit} delay=${DELAY:-1ms}
id=$$
a=gw_a_$id b=gw_b_$id
folder=$(mktemp --directory --tmpdir=/tmp)
clean_up() {
  ip netns del "$a" 2>/dev/null || true
  ip netns del "$b" 2>/dev/null || true
  rm -rf "$folder"
}
trap clean_up EXIT

ip netns add "$a"
ip netns add "$b"
ip link add "va$id" type veth peer name "vb$id"
ip link set "va$id" netns "$a"
ip link set "vb$id" netns "$b"
host() { # namespace, device, address
  ip -n "$1" link set lo up
  ip -n "$1" addr add "$3/24" dev "$2"
  ip -n "$1" link set "$2" up
  if ! tc -n "$1" qdisc add dev "$2" root netem rate "$rate" delay "$delay" 2>/dev/null; then
    echo "two_hosts.sh: this kernel has no netem; the link of $3 has the rate and the delay of memory" >&2
  fi
}
host "$a" "va$id" 10.77.0.1
host "$b" "vb$id" 10.77.0.2

# Starts Open MPI's daemon on the other host, in the place of ssh. A name of its own keeps the two apart.
cat >"$folder/agent" <<AGENT
#!/bin/bash
shift
exec ip netns exec $b unshare --uts bash -c 'hostname gw-b; '"\$*"
AGENT
chmod +x "$folder/agent"

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 TMPDIR=$folder
network=10.77.0.0/24
ip netns exec "$a" unshare --uts bash -c 'hostname gw-a; exec "$@"' bash \
  mpirun -np 2 --host 10.77.0.1:1,10.77.0.2:1 --mca plm_rsh_agent "$folder/agent" --mca btl tcp,self \
  --mca btl_tcp_if_include $network --mca oob_tcp_if_include $network "$@"
