//! Many points, few requests: what lies close together is read together.
//!
//! ```text
//! points due   [10..12]   [13]  [20..24]            [300]      one table, sorted by address
//! requests     [10 ─────────────────── 24]          [300]      gaps up to the limit are read along
//! refused:     [10 ────── 13]▲[20 ── 24]            [300]      a cut; both halves are tried at once
//! ```
//! A device that answers "illegal data address" to a joined request is asked again in halves, and the cut is remembered. A
//! point that is refused alone is cut off from both neighbours, so it cannot take them along.

use edge_model::device::modbus::Table;

/// What one request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most registers nobody asked for that are read along; 16 times as many bits.
    pub gap: u16,
    /// The most registers.
    pub registers: u16,
    /// The most bits.
    pub bits: u16,
}

/// Where one point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Its table.
    pub table: Table,
    /// Its first address.
    pub address: u16,
    /// How many registers or bits, at least 1.
    pub count: u16,
}

impl Span {
    /// One past its last address.
    const fn end(self) -> u32 {
        self.address as u32 + self.count as u32
    }
}

/// One read: what to ask for, and which of the due points it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What to ask for.
    pub span: Span,
    /// The first of the due points it answers.
    pub first: usize,
    /// One past the last of them.
    pub last: usize,
}

/// The points of a device in the order of their addresses, with what is known of its holes.
#[derive(Debug)]
pub struct Map {
    /// In ascending order.
    spans: Vec<Span>,
    /// No request joins this span with the one before.
    cut: Vec<bool>,
    /// This span was refused alone.
    bad: Vec<bool>,
    limits: Limits,
    /// Grows with every change of what is known.
    version: u64,
}

impl Map {
    /// A map of spans in ascending order.
    pub fn new(spans: Vec<Span>, limits: Limits) -> Map {
        debug_assert!(spans.is_sorted());
        Map { cut: vec![false; spans.len()], bad: vec![false; spans.len()], spans, limits, version: 0 }
    }

    /// Another number whenever the same spans may want other requests than before.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The fewest requests that read the `due` spans (ascending indices), respecting limits and cuts.
    pub fn plan(&self, due: &[usize], requests: &mut Vec<Request>) {
        requests.clear();
        // The index of the span before, to see the cuts between.
        let mut before = None;
        for (i, &index) in due.iter().enumerate() {
            let Some(&span) = self.spans.get(index) else { continue };
            match (requests.last_mut(), before) {
                (Some(r), Some(b)) if self.joins(r.span, span, b, index) => {
                    let end = r.span.end().max(span.end());
                    r.span.count = u16::try_from(end - u32::from(r.span.address)).unwrap_or(u16::MAX);
                    r.last = i + 1;
                }
                _ => requests.push(Request { span, first: i, last: i + 1 }),
            }
            before = Some(index);
        }
    }

    fn joins(&self, open: Span, next: Span, before: usize, index: usize) -> bool {
        let (most, gap) = match next.table.is_bits() {
            true => (self.limits.bits, self.limits.gap.saturating_mul(16)),
            false => (self.limits.registers, self.limits.gap),
        };
        open.table == next.table
            && u32::from(next.address) <= open.end() + u32::from(gap)
            && open.end().max(next.end()) - u32::from(open.address) <= u32::from(most)
            && !self.cut.get(before + 1..=index).is_some_and(|cuts| cuts.contains(&true))
    }

    /// A joined request was refused: two requests for its halves, and the cut between them is remembered.
    pub fn split(&mut self, request: Request, due: &[usize]) -> [Request; 2] {
        let middle = request.first + (request.last - request.first) / 2;
        if let Some(cut) = due.get(middle).and_then(|i| self.cut.get_mut(*i)) {
            *cut = true;
            self.version += 1;
        }
        let around = |first: usize, last: usize| {
            let mut all = due.get(first..last).unwrap_or_default().iter().filter_map(|i| self.spans.get(*i));
            let mut span = all.next().copied().unwrap_or(request.span);
            let end = all.fold(span.end(), |end, s| end.max(s.end()));
            span.count = u16::try_from(end - u32::from(span.address)).unwrap_or(u16::MAX);
            Request { span, first, last }
        };
        [around(request.first, middle), around(middle, request.last)]
    }

    /// A span was refused alone. The cuts made while looking for it go again; those around it stay.
    pub fn set_bad(&mut self, index: usize) {
        if self.bad.get(index) == Some(&false) {
            self.bad[index] = true;
            self.rebuild();
        }
    }

    /// A span that was refused is readable again.
    pub fn set_good(&mut self, index: usize) {
        if self.bad.get(index) == Some(&true) {
            self.bad[index] = false;
            self.rebuild();
        }
    }

    /// Whether a span was refused alone.
    pub fn is_bad(&self, index: usize) -> bool {
        self.bad.get(index) == Some(&true)
    }

    /// Whether any span was refused alone.
    pub fn any_bad(&self) -> bool {
        self.bad.contains(&true)
    }

    fn rebuild(&mut self) {
        self.version += 1;
        for i in 0..self.cut.len() {
            self.cut[i] = self.bad[i] || (i > 0 && self.bad[i - 1]);
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
