# The part that tests over mpirun share: it finds the program, skips the test without MPI, and makes a
# folder of its own.
program=tests/distributed/train_program
fail() {
  echo "FAILED: $*" >&2
  exit 1
}
if ! command -v mpirun >/dev/null || "$program" --has_mpi | grep -q "no MPI"; then
  echo "SKIPPED: there is no MPI; install libopenmpi-dev and openmpi-bin, and build again"
  exit 0
fi

# Tests run as root, on machines with fewer processors than processes, and without a network.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_btl=self,vader OMPI_MCA_plm_rsh_agent=false OMPI_MCA_btl_vader_single_copy_mechanism=none
export HYDRA_LAUNCHER=fork
export TMPDIR=$(mktemp --directory --tmpdir=/tmp)  # Sockets need a short path.
trap 'rm -rf "$TMPDIR"' EXIT
