//! The plan covers every point exactly once and never asks for more than it may, whatever was learnt of the device's holes.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { gap: 16, registers: 125, bits: 2_000 };

fn span(table: Table, address: u16, count: u16) -> Span {
    Span { table, address, count }
}

fn holding(spans: &[(u16, u16)]) -> Vec<Span> {
    spans.iter().map(|(address, count)| span(Table::Holding, *address, *count)).collect()
}

fn all(map: &Map) -> Vec<usize> {
    (0..map.spans.len()).collect()
}

fn plan(map: &Map, due: &[usize]) -> Vec<(u16, u16, usize)> {
    let mut requests = Vec::new();
    map.plan(due, &mut requests);
    requests.iter().map(|r| (r.span.address, r.span.count, r.last - r.first)).collect()
}

#[test]
fn neighbours_are_read_together() {
    let map = Map::new(holding(&[(10, 2), (13, 1), (20, 4), (300, 1)]), LIMITS);
    assert_eq!(plan(&map, &all(&map)), [(10, 14, 3), (300, 1, 1)]);
    assert_eq!(plan(&map, &[0, 2]), [(10, 14, 2)], "points that are not due are bridged");
    assert_eq!(plan(&map, &[]), []);
}

#[test]
fn limits_and_tables_end_a_request() {
    let map = Map::new(holding(&[(0, 100), (100, 25), (125, 1)]), LIMITS);
    assert_eq!(plan(&map, &all(&map)), [(0, 125, 2), (125, 1, 1)]);
    let small = Limits { gap: 0, registers: 4, bits: 16 };
    let map = Map::new(holding(&[(0, 2), (2, 2), (4, 2), (7, 1)]), small);
    assert_eq!(plan(&map, &all(&map)), [(0, 4, 2), (4, 2, 1), (7, 1, 1)]);
    let mixed = vec![span(Table::Coil, 0, 1), span(Table::Coil, 200, 1), span(Table::Holding, 201, 1)];
    let map = Map::new(mixed, LIMITS);
    assert_eq!(plan(&map, &all(&map)), [(0, 201, 2), (201, 1, 1)], "a gap of 16 registers is one of 256 bits");
    // Overlapping points (bits of one register, a number and its halves) and the last address.
    let map = Map::new(holding(&[(65_500, 4), (65_501, 1), (65_535, 1)]), Limits { gap: 100, ..LIMITS });
    assert_eq!(plan(&map, &all(&map)), [(65_500, 36, 3)]);
}

/// Reads a device in which `works` says whether a request is answered; what was refused alone, and the requests it took.
fn read(map: &mut Map, works: impl Fn(Span) -> bool) -> (Vec<usize>, usize) {
    let due: Vec<usize> = (0..map.spans.len()).filter(|i| !map.is_bad(*i)).collect();
    let (mut requests, mut bad, mut asked) = (Vec::new(), Vec::new(), 0);
    map.plan(&due, &mut requests);
    while let Some(request) = requests.pop() {
        asked += 1;
        if works(request.span) {
            continue;
        }
        if request.last - request.first > 1 {
            requests.extend(map.split(request, &due));
        } else {
            map.set_bad(due[request.first]);
            bad.push(due[request.first]);
        }
    }
    (bad, asked)
}

#[test]
fn one_bad_register_does_not_take_the_others_along() {
    let mut map = Map::new(holding(&[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)]), LIMITS);
    let without_5 = |s: Span| !(u32::from(s.address)..s.end()).contains(&5);
    let (bad, asked) = read(&mut map, without_5);
    assert_eq!(bad, [5]);
    assert!(asked <= 8, "{asked}");
    assert_eq!(read(&mut map, without_5), (vec![], 2), "two requests around it from then on");
    map.set_good(5);
    assert_eq!(plan(&map, &all(&map)), [(0, 8, 8)], "and one again once it is back");
}

#[test]
fn a_hole_between_points_is_remembered() {
    let mut map = Map::new(holding(&[(0, 1), (4, 1), (8, 1), (12, 1)]), LIMITS);
    // Nothing may be read across address 6.
    let hole = |s: Span| !(u32::from(s.address)..s.end()).contains(&6);
    assert_eq!(read(&mut map, hole), (vec![], 3));
    assert_eq!(read(&mut map, hole), (vec![], 2));
}

fn maps() -> impl Strategy<Value = Map> {
    let table = prop_oneof![Just(Table::Coil), Just(Table::Discrete), Just(Table::Holding), Just(Table::Input)];
    let spans = prop::collection::vec((table, 0u16..400, 1u16..9), 1..60);
    let limits =
        (0u16..40, 8u16..=125, 8u16..=2_000).prop_map(|(gap, registers, bits)| Limits { gap, registers, bits });
    (spans, limits).prop_map(|(spans, limits)| {
        let mut spans: Vec<Span> = spans.into_iter().map(|(t, a, c)| span(t, a, c)).collect();
        spans.sort();
        Map::new(spans, limits)
    })
}

proptest! {
    #[test]
    fn every_due_point_is_covered_once_within_limits(map in maps(), some in prop::collection::vec(any::<bool>(), 60)) {
        let due: Vec<usize> = all(&map).into_iter().filter(|i| some[*i]).collect();
        let mut requests = Vec::new();
        map.plan(&due, &mut requests);
        let mut next = 0;
        for r in &requests {
            prop_assert_eq!(r.first, next, "every point in exactly one request, in order");
            prop_assert!(r.last > r.first);
            next = r.last;
            let most = if r.span.table.is_bits() { map.limits.bits } else { map.limits.registers };
            prop_assert!(r.span.count <= most);
            for index in &due[r.first..r.last] {
                let s = map.spans[*index];
                prop_assert!(s.table == r.span.table && s.address >= r.span.address && s.end() <= r.span.end());
            }
        }
        prop_assert_eq!(next, due.len());
    }

    /// Whatever addresses a device lacks: exactly the points that touch them are bad, and the next round asks nothing in vain.
    #[test]
    fn holes_are_learnt_once(map in maps(), holes in prop::collection::btree_set(0u32..400, 0..10)) {
        let mut map = map;
        let works = |s: Span| holes.range(u32::from(s.address)..s.end()).next().is_none();
        let (mut bad, _) = read(&mut map, works);
        // Learning one hole may join what was cut before; a few rounds settle it.
        for _ in 0..map.spans.len() {
            bad.extend(read(&mut map, works).0);
        }
        bad.sort_unstable();
        let expected: Vec<usize> = all(&map).into_iter().filter(|i| !works(map.spans[*i])).collect();
        prop_assert_eq!(bad, expected);
        let due: Vec<usize> = all(&map).into_iter().filter(|i| !map.is_bad(*i)).collect();
        let mut requests = Vec::new();
        map.plan(&due, &mut requests);
        prop_assert!(requests.iter().all(|r| works(r.span)), "settled");
    }
}
