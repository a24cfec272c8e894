//! What a program has used: CPU time and resident memory, of all its threads and child processes, from `/proc`.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A clock tick of `/proc`, in milliseconds.
const TICK_MS: u64 = 10;

/// CPU time since the program began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// On a core, counted in nanoseconds.
    pub(crate) total: Duration,
    /// Clock ticks (10 ms) in user and system mode: too coarse for sums, good for the split.
    user_ticks: u64,
    system_ticks: u64,
}

impl CpuTime {
    /// That of process `pid` and all below it.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut sum = Self::default();
        for pid in tree(pid)? {
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                sum.total += on_core(&fs::read_to_string(task?.path().join("schedstat"))?)?;
            }
            let (user, system) = ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?)?;
            sum.user_ticks += user;
            sum.system_ticks += system;
        }
        Ok(sum)
    }

    /// What was used between `earlier` and this.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
        }
    }

    /// The part of it in user mode, 0 to 1.
    pub(crate) fn user_part(self) -> f64 {
        self.user_ticks as f64 / (self.user_ticks + self.system_ticks).max(1) as f64
    }
}

/// CPU time that anybody on this machine has used, and what was taken from the machine itself, since it started. Its
/// grain is 10 ms.
pub(crate) fn busy() -> io::Result<Duration> {
    busy_ticks(&fs::read_to_string("/proc/stat")?).map(|ticks| Duration::from_millis(ticks * TICK_MS))
}

/// `user nice system idle iowait irq softirq steal` of all cores together: all but those in which nothing ran.
fn busy_ticks(stat: &str) -> io::Result<u64> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu ")).ok_or_else(|| bad("stat"))?;
    let fields: Vec<u64> = all.split_whitespace().map_while(|text| text.parse().ok()).collect();
    let [user, nice, system, _, _, irq, softirq, steal, ..] = fields[..] else { return Err(bad("stat")) };
    Ok(user + nice + system + irq + softirq + steal)
}

/// Resident memory of process `pid` and all below it, in KiB.
pub(crate) fn resident_kib(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for pid in tree(pid)? {
        sum += resident_kib_of(pid)?;
    }
    Ok(sum)
}

/// Resident memory of process `pid` alone, in KiB.
pub(crate) fn resident_kib_of(pid: u32) -> io::Result<u64> {
    resident(&fs::read_to_string(format!("/proc/{pid}/status"))?)
}

/// The process that has started process `pid`.
pub(crate) fn parent(pid: u32) -> io::Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|rest| rest.trim().parse().ok()).ok_or_else(|| bad("status"))
}

/// A process and all below it.
fn tree(root: u32) -> io::Result<Vec<u32>> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let children: PathBuf = task?.path().join("children");
            found.extend(fs::read_to_string(children)?.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    Ok(found)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The first number of `schedstat`: nanoseconds on a core.
fn on_core(schedstat: &str) -> io::Result<Duration> {
    let nanos = schedstat.split_whitespace().next().and_then(|text| text.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| bad("schedstat"))
}

/// `utime` and `stime`, fields 14 and 15 of `stat` (proc(5)). The name in parentheses may hold spaces and parentheses.
fn ticks(stat: &str) -> io::Result<(u64, u64)> {
    let (_, behind_name) = stat.rsplit_once(')').ok_or_else(|| bad("stat"))?;
    let mut fields = behind_name.split_whitespace().skip(11).map(|text| text.parse().ok());
    match (fields.next().flatten(), fields.next().flatten()) {
        (Some(user), Some(system)) => Ok((user, system)),
        _ => Err(bad("stat")),
    }
}

fn resident(status: &str) -> io::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).ok_or_else(|| bad("status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_understood() {
        assert_eq!(on_core("1095528 77 3\n").unwrap(), Duration::from_nanos(1_095_528));
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194304 1 0 0 0 31 42 0 0 20 0 5 0 100 1 2";
        assert_eq!(ticks(stat).unwrap(), (31, 42));
        assert_eq!(resident("Name:\tlb\nVmRSS:\t    8124 kB\nRssAnon:\t 1 kB\n").unwrap(), 8124);
        let machine = "cpu  100 2 30 9999 40 5 6 7 0 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n";
        assert_eq!(busy_ticks(machine).unwrap(), 150);
        assert!(busy_ticks("cpu 1 2").is_err() && busy().unwrap() > Duration::ZERO);
        assert!(on_core("").is_err() && ticks("12 a").is_err() && resident("Name: x").is_err());
    }

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let pid = std::process::id();
        let before = CpuTime::of(pid).unwrap();
        let mut sum = 0_u64;
        while CpuTime::of(pid).unwrap().since(before).total < Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_mul(31) + 7);
        }
        assert!(resident_kib(pid).unwrap() > 100);
        let split = CpuTime { user_ticks: 3, system_ticks: 1, ..CpuTime::default() };
        assert!((split.user_part() - 0.75).abs() < 1e-9);
    }
}
