use proptest::prelude::*;

use super::*;
use crate::{fixtures, random};

/// Every candidate that a walk shows.
#[derive(Default)]
struct Seen(Vec<Row>);

impl Search for Seen {
    fn visit(&mut self, block: usize, candidates: u64) {
        self.0.extend(bits(candidates).map(|bit| row_at(block, bit)));
    }
}

fn scattered(seed: u64, hosts: usize) -> HostTable {
    let mut rng = crate::SchedulerRng::from_seed(seed);
    let mut table = fixtures::table(0, 1);
    for number in 0..hosts {
        let mut host = fixtures::host(number, 3);
        host.up = rng.below(8) > 0;
        host.enabled = rng.below(8) > 0;
        host.total = [4 << rng.below(4), 1_000 << rng.below(4), 100].into();
        host.architectures = vec![["x86_64", "aarch64"][rng.index(2)].to_owned()];
        host.traits = if rng.below(2) == 0 { vec!["ssd".to_owned()] } else { vec![] };
        let name = host.name.clone();
        table.upsert_host(host).unwrap();
        let amounts = [rng.below(33), rng.below(9_000), rng.below(120)];
        let _ = table.allocate(&name, number as u128, &amounts.into());
        if rng.below(10) == 0 {
            table.remove_host(&name);
        }
    }
    table
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Judging hosts one by one, 64 at once, and walking past blocks by their summaries is the same.
    #[test]
    fn verdict_candidates_and_walk_agree(
        seed in any::<u64>(),
        hosts in 0_usize..400,
        amounts in [0_u64..20, 0_u64..9_000, 0_u64..120],
        zone in proptest::option::of(0_usize..4),
        pick in any::<u64>(),
        flags in 0_u8..16,
        group in proptest::option::of((0_usize..4, 1_u32..3, proptest::collection::vec(0_usize..400, 0..40))),
    ) {
        let table = scattered(seed, hosts);
        let mut request = Request::new(amounts.into());
        request.zone = zone.map(|zone| format!("zone-{zone}"));
        request.architecture = (flags & 1 > 0).then(|| "aarch64".to_owned());
        request.required_traits = if flags & 2 > 0 { vec!["ssd".to_owned()] } else { vec![] };
        request.forbidden_traits = if flags & 4 > 0 { vec!["ssd".to_owned()] } else { vec![] };
        request.ignore_hosts = vec![format!("host-{}", pick % 400)];
        let limit = (flags & 8 > 0).then_some(Limit { name: "max_cores", dimension: 0, most: 12 });
        request.group = group.map(|(policy, max_server_per_host, places)| {
            let policy = ["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"][policy];
            let policy = crate::GroupPolicy::parse(policy).unwrap();
            let places = places.into_iter().map(|number| format!("host-{number}")).collect();
            crate::ServerGroup { max_server_per_host, places, ..crate::ServerGroup::new(policy, vec![]) }
        });
        let query = Query::new(&table, &request, limit);
        let mut overlay = Overlay::default();
        let mut rng = crate::SchedulerRng::from_seed(pick);
        for round in 0..3 {
            overlay.wish = [Tier::Below(1), Tier::AtLeast(1), Tier::Any][(round + pick as usize) % 3];
            let all: Vec<Row> = (0..(table.blocks.len() * BLOCK) as Row)
                .filter(|row| table.cold(*row).is_some() && query.verdict(*row, &overlay).is_ok())
                .collect();
            let mut seen = Seen::default();
            query.walk(&overlay, &mut seen);
            seen.0.sort_unstable();
            prop_assert_eq!(&all, &seen.0);
            match random::Draw::new(&query).choose(&overlay, &mut rng) {
                Some(row) => {
                    prop_assert!(all.contains(&row));
                    *overlay.placed.entry(row).or_insert(0) += 1;
                }
                None => prop_assert!(all.is_empty()),
            }
        }
    }
}
