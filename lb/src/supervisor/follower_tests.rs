use std::sync::Arc;

use super::*;
use crate::replica::{Hostname, ReplicaId};

fn member(generation: u64, state: Standing) -> RemoteMember {
    RemoteMember {
        generation: Generation(generation),
        id: ReplicaId(u32::try_from(generation).unwrap()),
        hostname: Hostname::new(&format!("S{generation}")).unwrap(),
        addr: Some(([127, 0, 0, 1], 5000).into()),
        runtime_id: Some(format!("i{generation}")),
        state,
        desired: state != Standing::Draining,
        spare: false,
        share: Share::default(),
        order: generation,
        started_at: Some(0),
        crashes: 0,
        launch_at: None,
        last_error: None,
    }
}

struct World {
    follower: Follower,
    now: Instant,
    epoch: u64,
}

impl World {
    fn new() -> Self {
        Self { follower: Follower::new(HeartbeatConfig::default(), 1), now: Instant::now(), epoch: 0 }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let actions = self.follower.handle(event, self.now);
        self.follower.check_invariants();
        actions
    }

    fn members(&mut self, members: Vec<RemoteMember>) -> Vec<Action> {
        self.epoch += 1;
        let membership = Membership { instance: "run".into(), epoch: self.epoch, members: Arc::from(members) };
        self.tell(Event::Runtime(RuntimeEvent::Members(membership)))
    }

    fn detach(&mut self) -> Vec<Action> {
        self.tell(Event::Runtime(RuntimeEvent::Detached("gone".into())))
    }

    /// Lets time pass to the next probes, and answers those of `generation`; the others answer well.
    fn probe(&mut self, generation: u64, good: bool) -> Vec<Action> {
        self.now += Duration::from_secs(1);
        let mut all = self.tell(Event::Tick);
        let probes: Vec<_> = all
            .iter()
            .filter_map(|action| match action {
                Action::Probe { generation, seq, .. } => Some((*generation, *seq)),
                _ => None,
            })
            .collect();
        for (probed, seq) in probes {
            let is_good = probed != Generation(generation) || good;
            let result = if is_good { Ok(()) } else { Err(ProbeError::Bad("no answer".into())) };
            all.extend(self.tell(Event::Probed { generation: probed, seq, result }));
        }
        all
    }

    fn ready(&self) -> Vec<u64> {
        let members = self.follower.members.iter();
        let ready = members.filter(|(_, member)| member.instance.is_some() && member.health == Health::Ready);
        ready.map(|(generation, _)| generation.0).collect()
    }
}

fn health(actions: &[Action], generation: u64) -> Option<Health> {
    actions.iter().rev().find_map(|action| match action {
        Action::Health { generation: of, health } if of.0 == generation => Some(*health),
        _ => None,
    })
}

fn ready(generations: &[u64]) -> Vec<RemoteMember> {
    generations.iter().map(|generation| member(*generation, Standing::Ready)).collect()
}

#[test]
fn members_are_published_before_they_are_ready_and_only_when_something_has_changed() {
    let mut world = World::new();
    let actions = world.members(ready(&[1, 2]));
    let published = actions.iter().position(|action| *action == Action::Publish).unwrap();
    let said = actions.iter().position(|action| matches!(action, Action::Health { .. })).unwrap();
    assert!(published < said, "{actions:?}");
    assert_eq!((world.ready(), world.follower.listing().n), (vec![1, 2], 2));
    assert!(!world.members(ready(&[1, 2])).contains(&Action::Publish), "nothing has changed");
    let mut heavier = ready(&[1, 2]);
    heavier[0].share.weight = 3;
    assert!(world.members(heavier).contains(&Action::Publish));
}

#[test]
fn a_place_is_kept_for_one_that_starts_and_none_for_a_spare() {
    let mut world = World::new();
    let mut spare = RemoteMember { id: ReplicaId(0), desired: false, spare: true, ..member(4, Standing::Ready) };
    world.members(vec![member(1, Standing::Ready), member(2, Standing::Starting), spare.clone()]);
    let places = |world: &World| world.follower.places().map(|place| place.id).collect::<Vec<_>>();
    assert_eq!((world.ready(), places(&world)), (vec![1], vec![1, 2]));
    // It takes the place of the first, which has died.
    spare = RemoteMember { id: ReplicaId(1), desired: true, spare: false, ..spare };
    let lost = RemoteMember { desired: false, ..member(1, Standing::Lost) };
    let actions = world.members(vec![lost, member(2, Standing::Ready), spare]);
    assert_eq!(health(&actions, 1), Some(Health::Lost), "requests that wait for it go elsewhere");
    assert_eq!((world.ready(), places(&world)), (vec![2, 4], vec![2, 1]));
}

#[test]
fn one_that_leaves_takes_no_request_and_is_forgotten_when_it_is_gone() {
    let mut world = World::new();
    world.members(ready(&[1, 2]));
    let actions = world.members(vec![member(1, Standing::Draining), member(2, Standing::Ready)]);
    assert_eq!(health(&actions, 1), Some(Health::Draining));
    assert!(!actions.contains(&Action::Gone { generation: Generation(1) }), "its requests are still counted");
    let actions = world.members(ready(&[2]));
    assert!(actions.contains(&Action::Gone { generation: Generation(1) }));
    assert_eq!(world.follower.listing().n, 1);
}

#[test]
fn both_must_think_well_of_a_replica() {
    let mut world = World::new();
    world.members(ready(&[1, 2]));
    let actions = world.members(vec![member(1, Standing::Unready), member(2, Standing::Ready)]);
    assert_eq!((health(&actions, 1), world.ready()), (Some(Health::Unready), vec![2]));
    world.probe(1, true);
    assert_eq!(world.ready(), [2], "the agent's word holds while it is heard");
    world.members(ready(&[1, 2]));
    for falls in 1..=3 {
        assert_eq!(world.ready(), [1, 2], "{falls}");
        world.probe(1, false);
    }
    assert_eq!(world.ready(), [2], "this balancer can't reach it");
    assert!(!world.members(ready(&[1, 2])).contains(&Action::Publish));
    assert_eq!(world.ready(), [2]);
    let actions = world.probe(1, true);
    assert_eq!((health(&actions, 1), world.ready()), (Some(Health::Ready), vec![1, 2]));
}

#[test]
fn a_refused_connection_takes_it_out_until_it_answers_a_probe_sent_later() {
    let mut world = World::new();
    world.members(ready(&[1, 2]));
    let actions = world.tell(Event::Refused { generation: Generation(1) });
    assert_eq!(health(&actions, 1), Some(Health::Unready));
    let seq = actions.iter().find_map(|action| match action {
        Action::Probe { generation: Generation(1), seq, .. } => Some(*seq),
        _ => None,
    });
    let seq = seq.expect("probed at once");
    let result = Ok(());
    assert!(world.tell(Event::Probed { generation: Generation(1), seq: seq - 1, result: result.clone() }).is_empty());
    let actions = world.tell(Event::Probed { generation: Generation(1), seq, result });
    assert_eq!(health(&actions, 1), Some(Health::Ready));
}

#[test]
fn without_the_agent_its_last_word_holds_and_heartbeats_tell_who_is_ready() {
    let mut world = World::new();
    world.members(vec![member(1, Standing::Ready), member(2, Standing::Unready), member(3, Standing::Draining)]);
    let actions = world.detach();
    assert!(!actions.contains(&Action::Publish));
    let probe = actions.iter().find_map(|action| match action {
        Action::Probe { generation: Generation(2), seq, .. } => Some(*seq),
        _ => None,
    });
    assert_eq!(world.ready(), [1], "it has to answer first");
    world.tell(Event::Probed { generation: Generation(2), seq: probe.expect("asked at once"), result: Ok(()) });
    assert_eq!(world.ready(), [1, 2], "whoever answers is ready");
    assert_eq!(world.follower.listing().n, 2);
    for _ in 0..3 {
        world.probe(1, false);
    }
    assert_eq!(world.ready(), [2]);
    world.probe(1, true);
    assert_eq!(world.ready(), [1, 2]);
    assert!(world.follower.link().detached.is_some());
    world.members(ready(&[1, 2]));
    assert_eq!(world.follower.link().detached, None);
}

#[test]
fn a_restarted_agent_that_does_not_know_yet_moves_nobody() {
    let mut world = World::new();
    world.members(ready(&[1, 2, 3]));
    world.detach();
    let starting = [1, 2, 3].map(|generation| member(generation, Standing::Starting)).to_vec();
    let actions = world.members(starting);
    assert_eq!(world.ready(), [1, 2, 3]);
    assert!(!actions.iter().any(|action| matches!(action, Action::Publish | Action::Health { .. })), "{actions:?}");
    // One that was started anew under a number used before is another one.
    let mut again = ready(&[1, 2, 3]);
    (again[1].runtime_id, again[1].addr) = (Some("other".into()), Some(([127, 0, 0, 1], 5001).into()));
    let actions = world.members(again);
    let gone = actions.iter().position(|action| *action == Action::Gone { generation: Generation(2) }).unwrap();
    let published = actions.iter().position(|action| *action == Action::Publish).unwrap();
    assert!(gone < published, "{actions:?}");
    assert_eq!(world.ready(), [1, 2, 3]);
}
