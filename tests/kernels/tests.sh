# shellcheck shell=bash disable=SC2034 # read by those who source this, and by tests/lint/docs.py
# Sourced: the tests of agent/tests/kernel that guests run, as filters: parts of module::name.

# The tests in which kernels differ most: every guest runs them.
widest=(
    examples:: probe:: helpers:: lockdown:: order:: the_status_agrees a_restarted_agent
)

# The other tests of what differs between kernels: `make test` runs them on the oldest and the newest one. The guest for
# arm64 runs them too.
kernel_dependent=(
    program_types:: map_attachment:: kinds::programs_find kinds::a_bloom kinds::cgroup_storage builtins::
    shared::both pods_are_selected types_are_mapped entries::flags entries::an_edit entries::a_list
    writer::long_lists sockets:: architectures::
)

# Tests of what kernels charge to users: the oldest one.
of_the_oldest=(
    memlock::
)

# Tests that start an agent hundreds of times, take long, or end before a call to the kernel: under emulation they would take
# half an hour, and their result does not depend on the kernel's version.
too_slow=(
    killed:: soak:: hostile:: link_update:: again_and_again suspend:: a_thousand_pods containers_of a_missing_cgroup_path
    read_only policy unknown_field before_a_load a_table the_cost_is_measured
)

# Tests that compile programs: no guest has a compiler.
without_compiler=(cases:: attach_type::)

# tests_of GUEST: the filters of its tests, if nobody asks for others. SOCKEYE_CHAOS=1 asks for all that emulation has time
# for.
tests_of() {
    [[ ! ${SOCKEYE_CHAOS-} ]] || return 0
    echo "${widest[*]}"
    case $1 in
    5.10) echo "${kernel_dependent[*]} ${of_the_oldest[*]}" ;;
    7.2 | *-arm64) echo "${kernel_dependent[*]}" ;;
    esac
}
