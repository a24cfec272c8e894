//! The fleet in a simulated world where everything goes wrong: replicas die, hang, are paused and told to end at any
//! moment; launches and stops fail; results come late, twice or never; lists are old; orders come in bursts.
//!
//! After each event the fleet's invariants must hold. When the faults end, it must find back to N ready replicas, with
//! nothing left over in the runtime and every order answered.
//!
//! A failure prints its seed; `RINGKEEPER_SEED=<seed> cargo test -p lb --test fleet_simulation` replays it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod deploy;
mod spares;
mod world;

use std::time::{Duration, SystemTime};

use lb::replica::{Generation, Health, Hostname, ReplicaSpec};
use lb::runtime::{Instance, InstanceId, RuntimeEvent};
use lb::supervisor::fleet::{Action, Event, Fleet, FleetConfig, Notice, Order, Refusal, State};
use rand::RngExt;
use tokio::time::Instant;

use world::{Faults, World, boot, boot_with_spares, config, instance};

/// Says which seed was at work if the test fails.
struct Seed(u64);
impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("replay with RINGKEEPER_SEED={}", self.0);
        }
    }
}

#[test]
fn whatever_happens_the_fleet_recovers() {
    let replay: Option<u64> = std::env::var("RINGKEEPER_SEED").ok().map(|seed| seed.parse().expect("a whole number"));
    let seeds = replay.map_or(0..24, |seed| seed..seed + 1);
    for seed in seeds {
        let _seed = Seed(seed);
        let mut world = boot_with_spares(seed, (seed % 3) as usize);
        let rough = |world: &mut World| world.rng.random_range(0..25);
        world.faults = Faults {
            launch_fails: rough(&mut world),
            result_lost: rough(&mut world) / 2,
            result_twice: rough(&mut world),
            stop_fails: rough(&mut world),
            probe_fails: rough(&mut world) / 4,
            event_lost: rough(&mut world) * 2,
            list_fails: rough(&mut world),
        };
        for _ in 0..400 {
            if world.chance(70) {
                world.mishap();
            } else {
                world.random_order();
            }
            let pause = world.rng.random_range(1..600);
            world.run(Duration::from_millis(pause));
        }
        world.faults = Faults::default();
        world.run(Duration::from_secs(60));
        // Whoever hung without being noticed yet answers again.
        world.hung.clear();
        world.run(Duration::from_secs(400));
        world.assert_recovered();
        let bad = world.alive.keys().filter(|id| ["missing", "hangs", "crashes"].contains(&world.images[*id].as_str()));
        assert_eq!(bad.count(), 0, "a broken image outlives its update: {:?}", world.images);
    }
}

#[test]
fn a_fleet_starts_with_s1_s2_s3_and_replaces_under_a_random_name_at_the_end() {
    let mut world = boot(1);
    world.run(Duration::from_secs(2));
    assert_eq!(world.states().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["S1", "S2", "S3"]);
    world.alive.remove(&InstanceId("i2".into()));
    world.tell(Event::Runtime(RuntimeEvent::Died { generation: Generation(2), reason: "was killed".into() }));
    let names: Vec<_> = world.fleet.listing().replicas.iter().map(ToString::to_string).collect();
    assert_eq!(names[..2], ["S1", "S3"], "listed under the replacement's name at once");
    assert_eq!(names[2].len(), 5);
    world.run(Duration::from_secs(2));
    world.assert_recovered();
    let ids: Vec<_> = world.fleet.published().map(|(instance, _)| instance.spec.id.0).collect();
    assert_eq!(ids, [1, 3, 2], "the replacement takes its ring number");
}

#[test]
fn a_replacement_takes_the_ring_number_over_where_a_lower_one_is_free() {
    let mut world = boot(4);
    world.run(Duration::from_secs(2));
    world.order(Order::Remove { n: 1, hostnames: vec![Hostname::new("S2").unwrap()] });
    world.run(Duration::from_secs(20));
    world.alive.remove(&InstanceId("i3".into()));
    world.tell(Event::Runtime(RuntimeEvent::Died { generation: Generation(3), reason: "was killed".into() }));
    world.run(Duration::from_secs(2));
    let ids = |world: &World| world.fleet.published().map(|(instance, _)| instance.spec.id.0).collect::<Vec<_>>();
    assert_eq!(ids(&world), [1, 3], "its keys are to come back");
    world.order(Order::Add { n: 1, hostnames: Vec::new() });
    world.run(Duration::from_secs(2));
    assert_eq!(ids(&world), [1, 3, 2], "a new one takes the lowest free number");
}

#[test]
fn a_replica_that_keeps_dying_is_replaced_ever_more_slowly_and_the_others_live_on() {
    let mut world = boot(2);
    world.run(Duration::from_secs(2));
    let survivors = [Generation(1), Generation(3)];
    let before = world.launches;
    let end = world.now + Duration::from_secs(120);
    while world.step(end) {
        let doomed: Vec<_> =
            world.alive.values().filter(|one| !survivors.contains(&one.spec.generation)).cloned().collect();
        for one in doomed {
            world.alive.remove(&one.id);
            world.runtime_event(RuntimeEvent::Died { generation: one.spec.generation, reason: "crashed".into() });
        }
    }
    let launches = world.launches - before;
    assert!((6..=16).contains(&launches), "{launches} launches in 120 s: two at once, then 0.2 s doubling to 30 s");
    let published: Vec<_> = world.fleet.published().map(|(instance, _)| instance.spec.generation).collect();
    assert_eq!(published, survivors);
    let view = world.fleet.view(world.now, SystemTime::UNIX_EPOCH);
    let waiting = view.iter().find(|member| member.state == State::Starting).unwrap();
    assert!(waiting.crashes > 5 && waiting.last_error.is_some(), "{waiting:?}");
    world.run(Duration::from_secs(100));
    world.assert_recovered();
}

#[test]
fn a_runtime_that_starts_nothing_does_not_take_down_the_living() {
    let mut world = boot(3);
    world.run(Duration::from_secs(2));
    world.faults.launch_fails = 100;
    world.alive.remove(&InstanceId("i1".into()));
    world.tell(Event::Runtime(RuntimeEvent::Died { generation: Generation(1), reason: "was killed".into() }));
    let before = world.launches;
    world.run(Duration::from_secs(60));
    assert!(world.launches - before <= 12, "{} launches in 60 s", world.launches - before);
    assert_eq!(world.fleet.published().count(), 2);
    assert!(world.notices.iter().any(|notice| matches!(notice, Notice::LaunchFailed { .. })));
    world.faults.launch_fails = 0;
    world.run(Duration::from_secs(60));
    world.assert_recovered();
}

#[test]
fn an_add_that_fails_leaves_nothing_behind_and_says_why() {
    let mut world = boot(4);
    world.run(Duration::from_secs(2));
    world.faults.launch_fails = 50;
    world.order(Order::Add { n: 6, hostnames: vec![Hostname::new("S9").unwrap()] });
    assert_eq!(world.fleet.listing().n, 3, "not counted before all are ready");
    world.run(Duration::from_secs(15));
    assert!(matches!(world.answers[..], [Err(Refusal::Runtime(_))]), "{:?}", world.answers);
    world.assert_recovered();
    assert_eq!(world.alive.len(), 3);
}

#[test]
fn orders_are_done_one_after_the_other_and_each_answer_fits_the_one_before() {
    let mut world = boot(5);
    world.run(Duration::from_secs(2));
    world.order(Order::Add { n: 2, hostnames: vec![Hostname::new("S4").unwrap()] });
    world.order(Order::Remove { n: 1, hostnames: vec![Hostname::new("S4").unwrap()] });
    world.order(Order::Add { n: 1, hostnames: vec![Hostname::new("S6").unwrap()] });
    assert!(world.answers.is_empty());
    world.run(Duration::from_secs(40));
    let n: Vec<_> = world.answers.iter().map(|answer| answer.as_ref().unwrap().n).collect();
    // The removal is decided when the first has been added, but answered when S4 has drained and gone.
    assert!(n == [5, 5, 4] || n == [5, 4, 5], "{n:?}");
    world.assert_recovered();
}

#[test]
fn refused_orders_change_nothing() {
    let mut world = boot(6);
    world.run(Duration::from_secs(2));
    let name = |text: &str| Hostname::new(text).unwrap();
    let listing = world.fleet.listing();
    for order in [
        Order::Add { n: 1, hostnames: vec![name("A1"), name("A2")] },
        Order::Add { n: 1, hostnames: vec![name("S1")] },
        Order::Add { n: 2, hostnames: vec![name("A1"), name("A1")] },
        Order::Add { n: 10, hostnames: vec![] },
        Order::Add { n: usize::MAX, hostnames: vec![] },
        Order::Remove { n: 1, hostnames: vec![name("S1"), name("S2")] },
        Order::Remove { n: 4, hostnames: vec![] },
        Order::Remove { n: 2, hostnames: vec![name("S1"), name("S1")] },
        Order::Remove { n: 1, hostnames: vec![name("A1")] },
    ] {
        let what = format!("{order:?}");
        world.order(order);
        assert!(world.answers.pop().expect("answered at once").is_err(), "{what}");
        assert_eq!(world.fleet.listing(), listing, "{what}");
    }
    world.run(Duration::from_secs(5));
    world.assert_recovered();
    assert_eq!(world.launches, 3);
}

#[test]
fn adoption_keeps_the_youngest_and_removes_strays() {
    let mut world = World::new(7);
    let spec = |id, generation, name: &str| ReplicaSpec {
        id: lb::replica::ReplicaId(id),
        generation: Generation(generation),
        hostname: Hostname::new(name).unwrap(),
    };
    let dead = Instance { running: false, ..instance(&spec(3, 7, "S3")) };
    let found = [instance(&spec(1, 1, "S1")), instance(&spec(2, 2, "S2")), instance(&spec(2, 9, "k3x9q")), dead];
    for one in &found {
        world.alive.insert(one.id.clone(), one.clone());
    }
    world.tell(Event::Listed { asked: world.now, instances: found.to_vec() });
    let names: Vec<_> = world.fleet.listing().replicas.iter().map(ToString::to_string).collect();
    assert_eq!(names[..2], ["S1", "k3x9q"]);
    assert_eq!(names.len(), 3, "topped up to N");
    assert!(!names[2].starts_with('S') || names[2].len() == 5, "a replacement has a random name: {}", names[2]);
    // What is not wanted may finish its requests.
    world.run(Duration::from_secs(20));
    world.assert_recovered();
    let (top_up, _) = world.fleet.published().last().unwrap();
    assert_eq!((top_up.spec.id.0, top_up.spec.generation.0), (3, 10), "generations go on where they ended");
}

#[test]
fn a_hung_replica_is_replaced_after_three_heartbeats_within_three_seconds() {
    for seed in 0..50 {
        let mut world = boot(seed);
        let calm = world.rng.random_range(2000..3000);
        world.run(Duration::from_millis(calm));
        world.hung.insert(InstanceId("i2".into()));
        let hung_at = world.now;
        while world.fleet.listing().replicas.iter().any(|name| name.as_str() == "S2") {
            let until = hung_at + Duration::from_secs(5);
            assert!(world.step(until), "seed {seed}: still listed after 5 s");
        }
        let took = world.now - hung_at;
        assert!(took <= Duration::from_secs(3), "seed {seed}: {took:?}");
        let told = world.notices.iter().any(
            |notice| matches!(notice, Notice::Replaced { reason, .. } if reason.starts_with("failed 3 heartbeats")),
        );
        assert!(told, "{:?}", world.notices);
    }
}

#[test]
fn a_fleet_that_closes_stops_everything_and_starts_nothing() {
    for seed in 0..50 {
        let _seed = Seed(seed);
        let mut world = boot(seed);
        let pause = world.millis(0..1500);
        world.run(pause);
        for _ in 0..10 {
            world.mishap();
            world.random_order();
            world.run(Duration::from_millis(50));
        }
        world.faults = Faults { stop_fails: 30, result_lost: 10, ..Faults::default() };
        world.tell(Event::Close { remove: true });
        let launches = world.launches;
        world.order(Order::Add { n: 1, hostnames: vec![] });
        assert!(matches!(world.answers.last(), Some(Err(Refusal::Closing))));
        world.run(Duration::from_secs(300));
        assert!(world.fleet.is_empty(), "{:?}", world.states());
        assert!(world.alive.is_empty(), "left over: {:?}", world.alive);
        assert_eq!(world.launches, launches);
    }
}

#[test]
fn an_adopted_replica_that_hangs_is_not_given_the_time_of_a_new_one() {
    let mut world = World::new(11);
    let spec = ReplicaSpec {
        id: lb::replica::ReplicaId(1),
        generation: Generation(5),
        hostname: Hostname::new("old").unwrap(),
    };
    let old = instance(&spec);
    world.hung.insert(old.id.clone());
    world.alive.insert(old.id.clone(), old.clone());
    world.tell(Event::Listed { asked: world.now, instances: vec![old] });
    world.run(Duration::from_secs(4));
    assert!(!world.fleet.listing().replicas.contains(&spec.hostname), "{:?}", world.states());
    world.run(Duration::from_secs(2));
    world.assert_recovered();
}

#[test]
fn an_instance_under_a_number_used_again_is_a_stray() {
    let mut world = boot(12);
    world.run(Duration::from_secs(2));
    let twin = Instance { id: InstanceId("twin".into()), ..world.alive.values().next().unwrap().clone() };
    world.alive.insert(twin.id.clone(), twin);
    world.run(Duration::from_secs(12));
    world.assert_recovered();
    assert_eq!(world.launches, 3, "the rightful one was left alone");
}

#[test]
fn want_of_descriptors_here_fails_nobody_there() {
    let mut world = boot(13);
    world.run(Duration::from_secs(2));
    world.not_asked = true;
    world.run(Duration::from_secs(60));
    assert_eq!((world.launches, world.fleet.published().count()), (3, 3));
}

#[test]
fn what_was_launched_too_late_is_stopped() {
    let mut fleet = Fleet::new(config(), 1);
    let now = Instant::now();
    fleet.handle(Event::Listed { asked: now, instances: vec![] }, now);
    let spec = ReplicaSpec {
        id: lb::replica::ReplicaId(1),
        generation: Generation(99),
        hostname: Hostname::new("late").unwrap(),
    };
    let actions = fleet.handle(Event::Launched { generation: Generation(99), result: Ok(instance(&spec)) }, now);
    let id = InstanceId("i99".into());
    assert_eq!(actions, [Action::Stop { generation: Generation(99), id, grace: Duration::ZERO }]);
}

#[test]
fn one_slow_heartbeat_evicts_nobody() {
    let mut world = boot(8);
    world.run(Duration::from_secs(2));
    for _ in 0..20 {
        world.hung.insert(InstanceId("i1".into()));
        world.run(Duration::from_millis(700));
        world.hung.clear();
        world.run(Duration::from_millis(2500));
    }
    assert_eq!(world.launches, 3, "{:?}", world.notices);
    assert!(world.now - world.begin > Duration::from_secs(60));
}

#[test]
fn a_fixed_membership_is_probed_but_never_changed() {
    let mut world = World::new(9);
    world.fleet = Fleet::new(FleetConfig { heals: false, ..config() }, 9);
    let members: Vec<_> = (1..=2)
        .map(|id| {
            instance(&ReplicaSpec {
                id: lb::replica::ReplicaId(id),
                generation: Generation(u64::from(id)),
                hostname: Hostname::new(&format!("S{id}")).unwrap(),
            })
        })
        .collect();
    world.alive.insert(members[0].id.clone(), members[0].clone());
    world.tell(Event::Listed { asked: world.now, instances: members.clone() });
    world.run(Duration::from_secs(100));
    let states = |world: &World| world.states().into_iter().map(|(_, state)| state).collect::<Vec<_>>();
    assert_eq!(states(&world), [State::Ready, State::Starting]);
    world.alive.clear();
    world.alive.insert(members[1].id.clone(), members[1].clone());
    world.run(Duration::from_secs(5));
    assert_eq!(states(&world), [State::Unready, State::Ready]);
    world.alive.insert(members[0].id.clone(), members[0].clone());
    world.run(Duration::from_secs(5));
    assert_eq!(states(&world), [State::Ready, State::Ready]);
    assert_eq!((world.launches, world.alive.len()), (0, 2));
    world.order(Order::Add { n: 1, hostnames: vec![] });
    assert_eq!(world.answers, [Err(Refusal::Fixed)]);
}

#[test]
fn live_traffic_and_a_pause_take_a_replica_out_until_it_answers() {
    let mut fleet = Fleet::new(config(), 1);
    let now = Instant::now();
    let launch = |actions: Vec<Action>| {
        actions.into_iter().filter_map(|action| match action {
            Action::Launch(launch) => Some(launch.spec),
            _ => None,
        })
    };
    for spec in launch(fleet.handle(Event::Listed { asked: now, instances: vec![] }, now)).collect::<Vec<_>>() {
        let generation = spec.generation;
        fleet.handle(Event::Launched { generation, result: Ok(instance(&spec)) }, now);
        fleet.handle(Event::Probed { generation, seq: 1, result: Ok(()) }, now);
    }
    let generation = Generation(1);
    for (event, health) in [
        (Event::Refused { generation }, Health::Unready),
        (Event::Runtime(RuntimeEvent::Paused { generation }), Health::Lost),
    ] {
        let actions = fleet.handle(event, now);
        assert!(actions.contains(&Action::Health { generation, health }), "{actions:?}");
        let seq = actions.iter().find_map(|action| match action {
            Action::Probe { generation: Generation(1), seq, .. } => Some(*seq),
            _ => None,
        });
        let seq = seq.expect("probed at once");
        // A stale result says nothing.
        assert!(fleet.handle(Event::Probed { generation, seq: seq - 1, result: Ok(()) }, now).is_empty());
        let actions = fleet.handle(Event::Probed { generation, seq, result: Ok(()) }, now);
        assert!(actions.contains(&Action::Health { generation, health: Health::Ready }), "{actions:?}");
        assert!(!actions.contains(&Action::Publish), "a flap changes no membership");
    }
}
