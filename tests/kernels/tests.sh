# shellcheck shell=bash disable=SC2034 # read by those who source this, and by tests/lint/docs.py
# Sourced: the tests of agent/tests/kernel that guests run, as filters: parts of module::name.

# Tests of what differs between kernels.
kernel_dependent=(
    examples:: types:: maps_attached:: kinds:: builtins:: order:: shared::both probe:: the_seeds_program
    a_restarted_agent pods_are_picked
)

# Tests that start an agent hundreds of times, take long, or end before a call to the kernel: under emulation they would take
# half an hour, and their result does not depend on the kernel's version.
too_slow=(
    killed:: soak:: hostile:: replaced:: again_and_again suspend:: pods::a_thousand pods::containers_of pods::a_place
    read_only policy not_known before_it_is_loaded a_table
)
