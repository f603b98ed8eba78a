use super::*;

fn refused<'a>(actor: &'a Actor, reason: &'static str, device: &'a str) -> Refused<'a> {
    Refused { actor, order: "lot", device: Some(device), reason, scope: RefusalScope::Device }
}

fn station(name: &str) -> Actor {
    Actor(format!("station:line1/{name}").into())
}

/// However often a peer is refused, what waits of it stays small, and no refusal is lost from the counts.
#[test]
fn flood_of_one_peer_stays_within_its_bounds() {
    let (mut waiting, flooder, now) = (Waiting::default(), station("flood"), Instant::now());
    for number in 0..200_000_u32 {
        waiting.note(&refused(&flooder, "KEY_WEAK", &format!("d{number}")), now);
    }
    for number in 0..10_000_u32 {
        let order = format!("made-up-{number}");
        waiting.note(&Refused { order: &order, ..refused(&flooder, "ORDER_UNKNOWN", "d") }, now);
    }
    let peer = &waiting.peers[&flooder];
    assert_eq!(peer.kinds.len(), KINDS);
    let pieces = || peer.kinds.values().flatten();
    assert_eq!(pieces().map(|gathered| gathered.count).sum::<u64>() + peer.dropped, 210_000);
    assert!(pieces().all(|gathered| gathered.devices.len() <= NAMED_DEVICES));
    assert_eq!(pieces().map(|gathered| gathered.devices.len()).sum::<usize>(), NAMES.0 as usize);
    // Another peer's refusals have their names all the same.
    let other = station("other");
    assert!(waiting.note(&refused(&other, "KEY_WEAK", "a"), now));
}

/// A device that is refused again and again is named once, and later again.
#[test]
fn refused_device_is_named_once_in_a_while() {
    let (mut waiting, actor, now) = (Waiting::default(), station("t1"), Instant::now());
    assert!(waiting.note(&refused(&actor, "KEY_WEAK", "a"), now));
    assert!(!waiting.note(&refused(&actor, "KEY_WEAK", "a"), now));
    assert!(waiting.note(&refused(&actor, "POP_INVALID", "a"), now));
    assert!(!waiting.note(&refused(&actor, "KEY_WEAK", "a"), now + Duration::from_secs(500)));
    assert!(waiting.note(&refused(&actor, "KEY_WEAK", "a"), now + Duration::from_secs(2000)));
}

/// Peers that were refused once do not fill the table forever.
#[test]
fn idle_peers_make_room_for_others() {
    let (mut waiting, now) = (Waiting::default(), Instant::now());
    for number in 0..2 * PEERS {
        waiting.note(&refused(&station(&format!("s{number}")), "KEY_WEAK", "a"), now);
    }
    assert_eq!((waiting.peers.len(), waiting.dropped), (PEERS, PEERS as u64));
    waiting.peers.values_mut().for_each(|peer| peer.kinds.clear());
    let later = now + Duration::from_secs(3600);
    assert!(waiting.note(&refused(&station("new"), "KEY_WEAK", "a"), later));
    assert_eq!(waiting.peers.len(), 1);
}
