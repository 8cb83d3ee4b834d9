//! The few SVG elements that the plots are made of.

use std::fmt::Write;

/// Ours.
pub(super) const OURS: &str = "#2563eb";
/// A peer.
pub(super) const PEER: &str = "#a8a29e";
/// What has to be reached.
pub(super) const BAR: &str = "#dc2626";
const INK: &str = "#1c1917";

/// A drawing under construction.
pub(super) struct Svg {
    elements: String,
    width: f64,
    height: f64,
}

/// Where text stands at its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    End,
}

impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { elements: String::new(), width, height }
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.elements.write_fmt(element);
        self.elements.push('\n');
    }

    pub(super) fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str) {
        self.push(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{fill}"/>"#
        ));
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.push(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{stroke}"/>"#
        ));
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], stroke: &str) {
        let mut text = String::new();
        for (x, y) in points {
            let _ = write!(text, "{x:.1},{y:.1} ");
        }
        let text = text.trim_end();
        self.push(format_args!(
            r#"<polyline points="{text}" fill="none" stroke="{stroke}" stroke-width="1.5"/>"#
        ));
    }

    pub(super) fn text(&mut self, at: (f64, f64), size: u32, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::End => "end",
        };
        let (x, y, text) = (at.0, at.1, escaped(text));
        self.push(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" text-anchor="{anchor}" fill="{INK}">{text}</text>"#
        ));
    }

    pub(super) fn finish(self) -> String {
        let Self { elements, width, height } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{elements}</svg>\n"
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
