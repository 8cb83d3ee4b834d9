//! The view drawn at several sizes, and what keys do.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Modifier;

use super::super::fixtures::{Made, look, silence};
use super::*;

const NOW: Duration = Duration::from_secs(100);

fn three() -> Vec<Made> {
    [1, 2, 3].map(|id| Made::new(id).applied(100)).to_vec()
}

fn view_of(looks: impl IntoIterator<Item = Look>) -> View {
    let mut view = View::new("10.0.0.1:7400".to_owned());
    looks.into_iter().for_each(|look| {
        let at = look.at;
        view.take(look, at);
    });
    view
}

fn drawn(view: &mut View, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view.draw(frame, NOW)).unwrap();
    terminal
}

fn text(view: &mut View, width: u16, height: u16) -> String {
    drawn(view, width, height).backend().to_string()
}

/// The line that contains `part`, and whether all of that part is dimmed.
fn is_dim(view: &mut View, part: &str) -> bool {
    let terminal = drawn(view, 120, 40);
    let buffer = terminal.backend().buffer();
    let line = |y: u16| (0..120).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    let y = (0..40).find(|y| line(*y).contains(part)).expect(part);
    let x = u16::try_from(line(y).find(part).unwrap()).unwrap();
    buffer[(x, y)].modifier.contains(Modifier::DIM)
}

fn press(view: &mut View, code: KeyCode) -> Flow {
    view.key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn the_essentials_are_shown() {
    let faster = [1, 2, 3].map(|id| Made::new(id).applied(150));
    let mut view = view_of([look(1, &three()), look(3, &faster)]);
    let text = text(&mut view, 120, 40);
    for part in [
        "nodes up 3/3",
        "shards led 2/2",
        "entries/s 50",
        "sessions 30",
        "messages queued 300",
        "bytes 75.0 KiB",
        "moves 1",
        "nodes (3)",
        "10.0.0.2:7400",
        "rack-3",
        "64.0 MiB",
        "1 h 0 min",
        "shards (2)",
        "3/3",
        "gateway-1",
        "1234",
        "1 -> 4",
        "node 4 does not answer",
        "alarm: shard 1: 1 -> 4 is stalled",
        "q quit",
        "space pause",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
}

#[test]
fn a_sum_without_all_its_shards_is_a_lower_bound() {
    let mut view = view_of([look(1, &three()), look(2, &three())]);
    assert!(text(&mut view, 120, 40).contains("entries/s 0.0"));
    view.rates.shards.remove(&1);
    assert!(text(&mut view, 120, 40).contains("entries/s ≥ 0.0"));
    view.rates.shards.clear();
    assert!(text(&mut view, 120, 40).contains("entries/s -"));
}

#[test]
fn a_narrow_terminal_shows_whole_figures_of_fewer_columns() {
    let mut view = view_of([look(1, &three())]);
    let said = text(&mut view, 43, 24);
    assert!(said.contains("1     active  2      2         20          \""), "{said}");
    assert!(!said.contains("64.0") && !said.contains("rack"), "{said}");
    assert!(said.contains("messages queued 200") && !said.contains("bytes 50"), "{said}");
    let said = text(&mut view, 36, 24);
    assert!(said.contains("replicas  sess…") && said.contains("2         20   \""), "{said}");
    assert!(!text(&mut view, 34, 24).contains("ses…"), "too little is left of that column");
    assert!(text(&mut view, 60, 24).contains("node 4 does no…"));
}

#[test]
fn no_size_is_too_small() {
    let sizes = [(1, 1), (20, 5), (1, 40), (200, 1), (3, 4), (80, 24), (300, 100)];
    for nodes in [vec![], three(), three().into_iter().map(Made::silent).collect()] {
        for looks in [vec![], vec![look(1, &nodes)], vec![look(1, &nodes), silence(2)]] {
            let mut view = view_of(looks);
            for (width, height) in sizes {
                for _ in Pane::ALL {
                    press(&mut view, KeyCode::End);
                    press(&mut view, KeyCode::Tab);
                    drawn(&mut view, width, height);
                }
            }
        }
    }
}

#[test]
fn a_terminal_that_grows_and_shrinks_is_drawn_anew() {
    let mut view = view_of([look(1, &three())]);
    let mut terminal = drawn(&mut view, 80, 24);
    for (width, height) in [(20, 5), (1, 1), (120, 40)] {
        terminal.backend_mut().resize(width, height);
        terminal.draw(|frame| view.draw(frame, NOW)).unwrap();
    }
    assert!(terminal.backend().to_string().contains("nodes up 3/3"));
}

#[test]
fn a_store_that_is_silent_leaves_its_last_figures_dimmed() {
    let mut never = view_of([silence(1)]);
    let said = text(&mut never, 120, 40);
    assert!(said.contains("error: no answer from 10.0.0.1:7400, trying again"), "{said}");
    assert!(said.contains("nobody listens"), "{said}");
    let mut view = view_of([look(90, &three()), silence(95)]);
    let said = text(&mut view, 120, 40);
    assert!(said.contains("figures are 10 s old"), "{said}");
    assert!(said.contains("messages queued 200"), "{said}");
    for part in ["nodes up", "10.0.0.1:7400 ", "gateway-1", "1 -> 4"] {
        assert!(is_dim(&mut view, part), "{part}:\n{said}");
    }
    view.take(look(99, &three()), NOW);
    assert!(!text(&mut view, 120, 40).contains("error:"), "it answers again");
}

#[test]
fn a_node_that_is_silent_is_named_and_dimmed() {
    let mut nodes = three();
    let first = look(1, &nodes);
    nodes[2] = nodes[2].clone().silent();
    let mut view = view_of([first, look(2, &nodes)]);
    let said = text(&mut view, 120, 40);
    assert!(said.contains("nodes up 2/3") && said.contains("active, unreachable"), "{said}");
    assert!(said.contains("alarm: node 3: unreachable"), "{said}");
    assert!(said.contains("2/3") && said.contains("shards led 2/2"), "{said}");
    assert!(is_dim(&mut view, "active, unreachable"));
    assert!(!is_dim(&mut view, "rack-1"));
}

#[test]
fn keys_end_it_pause_it_and_choose() {
    let mut view = view_of([look(1, &three())]);
    assert_eq!(press(&mut view, KeyCode::Char('q')), Flow::End);
    assert_eq!(press(&mut view, KeyCode::Esc), Flow::End);
    let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.key(ctrl_c), Flow::End);
    assert_eq!(press(&mut view, KeyCode::Char('c')), Flow::Go);

    assert_eq!(press(&mut view, KeyCode::Char(' ')), Flow::Go);
    view.take(silence(2), NOW);
    let said = text(&mut view, 120, 40);
    assert!(said.contains("paused") && !said.contains("error:"), "{said}");
    press(&mut view, KeyCode::Char(' '));
    view.take(silence(3), NOW);
    assert!(text(&mut view, 120, 40).contains("error:"));

    for (key, chosen) in [('s', 1), ('g', 2), ('m', 3), ('n', 0)] {
        press(&mut view, KeyCode::Char(key));
        assert_eq!(view.chosen, chosen);
    }
    press(&mut view, KeyCode::BackTab);
    assert_eq!(view.chosen, 3);
    press(&mut view, KeyCode::Tab);
    assert_eq!(view.chosen, 0);
}

#[test]
fn a_pane_that_has_no_room_for_all_its_rows_scrolls() {
    let nodes: Vec<Made> = (1..=30).map(Made::new).collect();
    let mut view = view_of([look(1, &nodes)]);
    // Header 3, footer 1, title and names 2: ten rows are left.
    assert!(text(&mut view, 100, 16).contains("nodes (1-10 of 30)"));
    press(&mut view, KeyCode::Down);
    assert!(text(&mut view, 100, 16).contains("nodes (2-11 of 30)"));
    press(&mut view, KeyCode::PageDown);
    assert!(text(&mut view, 100, 16).contains("nodes (12-21 of 30)"));
    press(&mut view, KeyCode::End);
    press(&mut view, KeyCode::Down);
    assert!(text(&mut view, 100, 16).contains("nodes (21-30 of 30)"), "not beyond the end");
    press(&mut view, KeyCode::PageUp);
    press(&mut view, KeyCode::Home);
    press(&mut view, KeyCode::Up);
    assert!(text(&mut view, 100, 16).contains("nodes (1-10 of 30)"), "not before the beginning");
}

#[test]
fn the_chosen_pane_gets_its_room_first() {
    assert_eq!(heights(40, [5, 18, 4, 3], 0), [5, 18, 4, 3]);
    assert_eq!(heights(20, [5, 18, 4, 3], 0), [5, 15, 0, 0]);
    assert_eq!(heights(20, [5, 18, 4, 3], 3), [5, 12, 0, 3]);
    assert_eq!(heights(7, [5, 18, 4, 3], 0), [5, 0, 0, 0], "no pane of two lines");
    assert_eq!(heights(1, [5, 18, 4, 3], 2), [0, 0, 1, 0]);
    assert_eq!(heights(0, [5, 18, 4, 3], 1), [0, 0, 0, 0]);
}
