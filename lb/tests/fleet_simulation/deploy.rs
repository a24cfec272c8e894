//! Rolling updates: one after the other, never fewer ready than before, and back if the new ones don't get ready.

use std::collections::BTreeSet;
use std::time::Duration;

use lb::replica::Generation;
use lb::runtime::{InstanceId, RuntimeEvent, Template};
use lb::supervisor::fleet::{Change, Event, Fleet, FleetConfig, Notice, Order, Refusal, Rollout};

use crate::world::{World, boot, boot_with_spares, config};

fn deploy(world: &mut World, image: &str) {
    world.order(Order::Deploy(Change { image: Some(image.into()), ..Change::default() }));
}

/// Images of the published ones, and their ring numbers.
fn published(world: &World) -> (Vec<String>, Vec<u32>) {
    let images = world.fleet.published().map(|(instance, _)| world.images[&instance.id].clone()).collect();
    let mut ids: Vec<_> = world.fleet.published().map(|(instance, _)| instance.spec.id.0).collect();
    ids.sort_unstable();
    (images, ids)
}

/// Runs until the update is over, and looks at every step that nobody is missing.
fn until_answered(world: &mut World, starting: usize) {
    let (answered, until) = (world.answers.len(), world.now + Duration::from_secs(300));
    while world.answers.len() == answered {
        assert!(world.step(until), "the update does not end: {:?}", world.fleet.progress());
        assert_eq!(published(world).1, [1, 2, 3], "each ring number is served all the time");
        let progress = world.fleet.progress().expect("there is an update");
        assert!(progress.starting.len() <= starting, "{progress:?}");
    }
}

#[test]
fn every_replica_is_replaced_in_turn_and_keeps_its_ring_number() {
    for seed in 0..20 {
        let mut world = boot(seed);
        world.run(Duration::from_secs(2));
        deploy(&mut world, "v2");
        // Whatever is asked for meanwhile waits.
        world.order(Order::Add { n: 1, hostnames: Vec::new() });
        until_answered(&mut world, 1);
        assert!(world.answers[0].is_ok(), "{:?}", world.answers);
        assert_eq!(published(&world), (vec!["v2".to_owned(); 3], vec![1, 2, 3]));
        let progress = world.fleet.progress().unwrap();
        assert_eq!((progress.state, progress.done, progress.total), (Rollout::Done, 3, 3));
        let updated = world.notices.iter().filter(|notice| matches!(notice, Notice::Updated { .. })).count();
        assert_eq!(updated, 3);
        world.run(Duration::from_secs(60));
        assert_eq!(published(&world).0, vec!["v2".to_owned(); 4], "and so is whoever comes later");
        world.assert_recovered();
    }
}

#[test]
fn what_does_not_get_ready_is_rolled_back() {
    for (image, done) in [("missing", false), ("hangs", false), ("crashes", true)] {
        for seed in 0..10 {
            let mut world = boot(seed);
            world.run(Duration::from_secs(2));
            deploy(&mut world, image);
            let until = world.now + Duration::from_secs(300);
            while world.answers.is_empty() {
                assert!(world.step(until), "{image}: {:?}", world.fleet.progress());
                // A crash after the first heartbeat may cost one for a moment; its replacement is as before.
                let least = if done { 2 } else { 3 };
                assert!(world.fleet.published().count() >= least, "{image}, seed {seed}");
            }
            assert!(matches!(&world.answers[0], Err(Refusal::RolledBack(_))), "{:?}", world.answers);
            world.run(Duration::from_secs(30));
            world.assert_recovered();
            assert_eq!(published(&world), (vec!["v1".to_owned(); 3], vec![1, 2, 3]), "{image}: as before");
            let progress = world.fleet.progress().unwrap();
            assert_eq!((progress.state, progress.done), (Rollout::RolledBack, 3), "{image}");
            assert!(progress.reason.is_some());
            // The next one is not taken for the one that failed.
            deploy(&mut world, "v3");
            until_answered(&mut world, 1);
            assert_eq!(published(&world).0, vec!["v3".to_owned(); 3]);
        }
    }
}

#[test]
fn an_update_that_fails_half_way_takes_back_what_it_has_brought() {
    let mut world = boot(3);
    world.run(Duration::from_secs(2));
    deploy(&mut world, "v2");
    while world.fleet.progress().is_none_or(|progress| progress.done < 2) {
        assert!(world.step(world.now + Duration::from_secs(60)));
    }
    // The newest one dies before it has settled.
    let newest = world.fleet.published().map(|(instance, _)| instance.spec.generation).max().unwrap();
    world.alive.remove(&InstanceId(format!("i{newest}")));
    world.tell(Event::Runtime(RuntimeEvent::Died { generation: newest, reason: "exited with status 1".into() }));
    world.run(Duration::from_secs(60));
    assert!(matches!(&world.answers[0], Err(Refusal::RolledBack(reason)) if reason.contains("exited with status 1")));
    assert_eq!(published(&world), (vec!["v1".to_owned(); 3], vec![1, 2, 3]));
    world.assert_recovered();
}

#[test]
fn whoever_fails_during_an_update_is_still_replaced() {
    for seed in 0..20 {
        let mut world = boot_with_spares(seed, (seed % 2) as usize);
        world.run(Duration::from_secs(2));
        deploy(&mut world, "v2");
        // The one that is about to be replaced, and one whose turn has not come.
        for generation in [1, 3] {
            let generation = Generation(generation);
            world.alive.remove(&InstanceId(format!("i{generation}")));
            world.tell(Event::Runtime(RuntimeEvent::Died { generation, reason: "was killed".into() }));
        }
        world.run(Duration::from_secs(120));
        assert!(world.answers[0].is_ok(), "seed {seed}: {:?}", world.answers);
        assert_eq!(published(&world), (vec!["v2".to_owned(); 3], vec![1, 2, 3]), "seed {seed}");
        world.assert_recovered();
        let spares: BTreeSet<_> = world.alive.keys().map(|id| world.images[id].clone()).collect();
        assert_eq!(spares.into_iter().collect::<Vec<_>>(), ["v2"], "spares are of the same make");
    }
}

#[test]
fn more_than_one_at_a_time_if_that_is_wanted() {
    let mut world = World::new(4);
    world.fleet = Fleet::new(FleetConfig { max_surge: 3, ..config() }, 4);
    world.tell(Event::Listed { asked: world.now, instances: Vec::new() });
    world.run(Duration::from_secs(2));
    deploy(&mut world, "v2");
    assert_eq!(world.fleet.progress().unwrap().starting.len(), 3);
    until_answered(&mut world, 3);
    assert_eq!(published(&world).0, vec!["v2".to_owned(); 3]);
}

#[test]
fn an_ejected_replica_finishes_its_requests_while_another_starts() {
    let mut world = boot(5);
    world.run(Duration::from_secs(2));
    world.order(Order::Eject {
        generation: Generation(2),
        reason: "answers after 240 ms, its peers after 12 ms".into(),
    });
    assert!(world.answers[0].is_ok());
    assert_eq!(world.fleet.published().count(), 2);
    assert!(world.notices.iter().any(|notice| {
        matches!(notice, Notice::Replaced { reason, .. } if reason.starts_with("answers after 240 ms"))
    }));
    world.order(Order::Eject { generation: Generation(2), reason: "again".into() });
    assert_eq!(world.answers[1], Err(Refusal::NoneToEject(Generation(2))));
    world.run(Duration::from_secs(30));
    world.assert_recovered();
}

#[test]
fn an_image_that_dies_after_it_has_settled_is_rolled_back_as_well() {
    let mut world = boot(6);
    world.run(Duration::from_secs(2));
    deploy(&mut world, "v2");
    while world.fleet.progress().is_none_or(|progress| progress.done < 2) {
        assert!(world.step(world.now + Duration::from_secs(60)));
    }
    // The first of them, which has stayed ready for longer than the others wait.
    let first =
        world.fleet.published().filter(|(one, _)| world.images[&one.id] == "v2").map(|(one, _)| one.spec.generation);
    let first = first.min().unwrap();
    world.alive.remove(&InstanceId(format!("i{first}")));
    world.tell(Event::Runtime(RuntimeEvent::Died { generation: first, reason: "exited with status 1".into() }));
    world.run(Duration::from_secs(60));
    assert!(matches!(&world.answers[0], Err(Refusal::RolledBack(_))), "{:?}", world.answers);
    assert_eq!(published(&world), (vec!["v1".to_owned(); 3], vec![1, 2, 3]));
    world.assert_recovered();
}

#[test]
fn an_agent_that_ends_during_an_update_keeps_those_that_have_answered() {
    for surge in [1, 3] {
        let mut world = World::new(7);
        world.fleet = Fleet::new(FleetConfig { max_surge: surge, ..config() }, 7);
        world.tell(Event::Listed { asked: world.now, instances: Vec::new() });
        world.run(Duration::from_secs(2));
        let before: BTreeSet<_> = world.alive.keys().cloned().collect();
        deploy(&mut world, "hangs");
        world.run(Duration::from_secs(2));
        assert_eq!(world.alive.len(), 3 + surge);

        let mut again = World::new(8);
        (again.alive, again.images, again.now) = (world.alive.clone(), world.images.clone(), world.now);
        let instances = again.alive.values().cloned().collect();
        again.tell(Event::Listed { asked: again.now, instances });
        let kept: BTreeSet<_> = again
            .fleet
            .view(again.now, std::time::SystemTime::UNIX_EPOCH)
            .into_iter()
            .filter(|member| member.desired)
            .map(|member| member.instance.unwrap().id)
            .collect();
        assert_eq!(kept, before, "those that serve");
        again.run(Duration::from_secs(30));
        assert_eq!(again.launches, 0);
        again.assert_recovered();
    }
}

#[test]
fn what_can_not_be_changed_is_refused() {
    let mut world = World::new(9);
    world.fleet = Fleet::new(FleetConfig { template: Template::default(), ..config() }, 9);
    world.tell(Event::Listed { asked: world.now, instances: Vec::new() });
    world.run(Duration::from_secs(2));
    let env = |name: &str| Change { env: Some([(name.to_owned(), String::new())].into()), ..Change::default() };
    for change in [
        Change { image: Some("v2".into()), ..Change::default() },
        Change { command: Some(Vec::new()), ..Change::default() },
        env("PORT"),
        env("SERVER_ID"),
        env(""),
    ] {
        // These replicas are processes: their template has no image.
        world.order(Order::Deploy(change.clone()));
        assert!(matches!(world.answers.last(), Some(Err(Refusal::BadChange(_)))), "{change:?}");
    }
    assert_eq!(world.fleet.progress(), None);
}
