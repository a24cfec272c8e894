//! Spares: a failure promotes one at once, and a restart finds everybody where they were.

use std::time::Duration;

use lb::replica::{Generation, Health, ReplicaId};
use lb::runtime::{Instance, InstanceId, RuntimeEvent};
use lb::supervisor::fleet::{Action, Event, Fleet, FleetConfig, Notice, Order};

use crate::world::{World, boot_with_spares, config};

fn numbers(world: &World) -> Vec<(u64, u32)> {
    world.fleet.published().map(|(instance, _)| (instance.spec.generation.0, instance.spec.id.0)).collect()
}

fn kill(world: &mut World, generation: u64) -> Vec<Action> {
    world.alive.remove(&InstanceId(format!("i{generation}")));
    let reason = "was killed".into();
    let event = Event::Runtime(RuntimeEvent::Died { generation: Generation(generation), reason });
    let actions = world.fleet.handle(event, world.now);
    world.fleet.check_invariants();
    for action in actions.clone() {
        world.carry_out(action);
    }
    actions
}

#[test]
fn a_spare_takes_over_in_the_very_step_that_notices_the_failure() {
    let mut world = boot_with_spares(1, 1);
    world.run(Duration::from_secs(2));
    world.assert_recovered();
    assert_eq!(numbers(&world), [(1, 1), (2, 2), (3, 3)], "the spare is not in the pool");
    assert_eq!((world.launches, world.fleet.places().count()), (4, 3));

    let actions = kill(&mut world, 2);
    assert_eq!(numbers(&world), [(1, 1), (3, 3), (4, 2)], "it has the ring number of the one that failed");
    let ready = Action::Health { generation: Generation(4), health: Health::Ready };
    let published = actions.iter().position(|action| *action == Action::Publish).expect("published");
    assert!(actions[published..].contains(&ready), "{actions:?}");
    assert!(matches!(world.notices.last(), Some(Notice::Promoted { .. })), "{:?}", world.notices);
    let names = world.fleet.listing().replicas;
    assert_eq!(names.len(), 3);
    assert_eq!(names[..2].iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["S1", "S3"]);
    world.run(Duration::from_secs(2));
    world.assert_recovered();
    assert_eq!(world.launches, 5, "a new spare was started behind it");
}

#[test]
fn a_spare_that_fails_is_replaced_and_moves_nobody() {
    let mut world = boot_with_spares(2, 2);
    world.run(Duration::from_secs(2));
    let before = numbers(&world);
    for generation in [4, 5] {
        let actions = kill(&mut world, generation);
        assert!(!actions.contains(&Action::Publish), "{actions:?}");
    }
    world.run(Duration::from_secs(3));
    assert_eq!(numbers(&world), before);
    world.assert_recovered();
}

#[test]
fn more_failures_than_spares_are_replaced_as_ever() {
    let mut world = boot_with_spares(3, 1);
    world.run(Duration::from_secs(2));
    for generation in [1, 2, 3] {
        kill(&mut world, generation);
    }
    assert_eq!(numbers(&world), [(4, 1)], "one was there to take over");
    world.run(Duration::from_secs(5));
    world.assert_recovered();
    let mut ids: Vec<_> = numbers(&world).into_iter().map(|(_, id)| id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn an_add_without_names_takes_spares_first() {
    let mut world = boot_with_spares(4, 1);
    world.run(Duration::from_secs(2));
    world.order(Order::Add { n: 1, hostnames: Vec::new() });
    assert_eq!(world.answers.len(), 1, "answered at once");
    assert_eq!(numbers(&world), [(1, 1), (2, 2), (3, 3), (4, 4)]);
    world.run(Duration::from_secs(2));
    world.assert_recovered();
    world.order(Order::Add { n: 1, hostnames: vec![lb::replica::Hostname::new("S9").unwrap()] });
    world.run(Duration::from_secs(2));
    assert!(world.fleet.listing().replicas.iter().any(|name| name.as_str() == "S9"));
    world.assert_recovered();
}

/// As labels tell it: with the ring number of the launch, and what that launch knew of others.
fn labelled(world: &World) -> Vec<Instance> {
    world.alive.values().cloned().collect()
}

#[test]
fn a_restart_finds_promoted_spares_under_their_numbers() {
    for seed in 0..20 {
        let mut world = boot_with_spares(seed, 2);
        world.run(Duration::from_secs(8));
        // In another order than that of the numbers, and one that is promoted and then fails as well.
        for generation in [3, 1, 4] {
            kill(&mut world, generation);
            world.run(Duration::from_secs(8));
        }
        world.assert_recovered();
        let before = (numbers(&world), world.fleet.listing().n);
        assert!(
            labelled(&world).iter().filter(|one| one.spec.id == ReplicaId(0)).count() > 2,
            "labels stay as they were"
        );

        let mut again = World::with_spares(seed + 100, 2);
        again.alive = world.alive.clone();
        again.now = world.now;
        again.tell(Event::Listed { asked: again.now, instances: labelled(&world) });
        again.run(Duration::from_secs(3));
        assert_eq!((numbers(&again), again.fleet.listing().n), before, "seed {seed}");
        assert_eq!(again.launches, 0, "seed {seed}");
        again.assert_recovered();
    }
}

#[test]
fn spares_that_are_not_wanted_any_more_are_removed_and_those_in_use_stay() {
    let mut world = boot_with_spares(5, 1);
    world.run(Duration::from_secs(8));
    kill(&mut world, 2);
    world.run(Duration::from_secs(8));
    let before = numbers(&world);
    let mut again = World::new(6);
    again.fleet = Fleet::new(FleetConfig { spares: 0, ..config() }, 6);
    again.alive = world.alive.clone();
    again.now = world.now;
    again.tell(Event::Listed { asked: again.now, instances: labelled(&world) });
    again.run(Duration::from_secs(20));
    assert_eq!(numbers(&again), before);
    again.assert_recovered();
}

#[test]
fn a_spare_that_has_taken_over_stays_even_if_nobody_is_left_who_knew() {
    for spares in [0, 1] {
        let mut world = boot_with_spares(7, 1);
        world.run(Duration::from_secs(8));
        kill(&mut world, 2);
        world.run(Duration::from_secs(8));
        let before = numbers(&world);
        assert_eq!(before, [(1, 1), (3, 3), (4, 2)]);
        // What was started after that, and knew, is gone.
        world.alive.retain(|_, instance| instance.spec.generation <= Generation(4));
        let mut again = World::with_spares(8, spares);
        again.alive = world.alive.clone();
        again.now = world.now;
        again.tell(Event::Listed { asked: again.now, instances: labelled(&world) });
        again.run(Duration::from_secs(8));
        assert_eq!((numbers(&again), again.launches), (before, spares as u64), "{spares}");
        again.assert_recovered();
    }
}
