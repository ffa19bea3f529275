//! `BpfNode`s folded into `BpfProgram.status`: pure, so that the operator and an agent without a cluster print the same.
