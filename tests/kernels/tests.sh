# shellcheck shell=bash disable=SC2034 # read by those who source this, and by tests/lint/docs.py
# Sourced: the tests of agent/tests/kernel that guests run, as filters: parts of module::name.

# Tests of what differs between kernels.
kernel_dependent=(
    examples:: program_types:: map_attachment:: kinds:: builtins:: order:: shared::both probe:: helpers:: lockdown::
    memlock:: the_status_agrees a_restarted_agent pods_are_selected
)

# Tests that start an agent hundreds of times, take long, or end before a call to the kernel: under emulation they would take
# half an hour, and their result does not depend on the kernel's version.
too_slow=(
    killed:: soak:: hostile:: link_update:: again_and_again suspend:: a_thousand_pods containers_of a_missing_cgroup_path
    read_only policy unknown_field before_a_load a_table
)
