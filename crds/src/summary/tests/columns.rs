//! The columns of IDs, each rule by an example.

use super::*;
use crate::program::Summary;

/// Returns the columns of a cluster of which each node has these program IDs.
fn columns(nodes: usize, ids: &[i64]) -> Summary {
    let mut report = attached("r2");
    report.programs[0].program_ids = ids.to_vec();
    summary(&Cluster::new((0..nodes).map(|_| (Live, Some(report.clone())))).fold()).clone()
}

#[test]
fn a_wide_column_has_all_ids_of_sixteen_nodes_and_counts_those_of_the_others() {
    let five = [101, 102, 103, 104, 105];
    let sixteen = ["101,102,103,104,105"; 16].join(",");
    assert_eq!(columns(16, &five).all_program_ids, sixteen);
    assert_eq!(columns(18, &five).all_program_ids, format!("{sixteen},+10"));
}

#[test]
fn a_node_whose_ids_have_no_room_is_left_out_as_a_whole_and_none_exceeds_the_schema() {
    let longest = [i64::MAX; 100];
    let Summary { all_program_ids, .. } = columns(16, &longest);
    assert_eq!(all_program_ids, format!("{},+1400", [i64::MAX.to_string().as_str(); 200].join(",")));
    let Summary { program_ids, .. } = columns(1, &longest);
    assert!(program_ids.len() <= Summary::MAX_NARROW_TEXT && program_ids.ends_with(",+50"), "{program_ids}");
}
