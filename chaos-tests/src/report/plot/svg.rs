//! Elements of an SVG, and how wide a text is.

use std::fmt::Write as _;

use super::WIDTH;

/// Font size of labels, in pixels.
pub(super) const FONT: f64 = 12.0;

/// A colour that is told from all others (Okabe & Ito 2008).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Of text and lines of the axes; follows light and dark.
    Ink,
    /// Of secondary text; follows light and dark.
    Muted,
    /// #0072B2.
    Blue,
    /// #E69F00.
    Orange,
    /// #009E73.
    Green,
    /// #D55E00.
    Vermilion,
    /// #56B4E9.
    Sky,
    /// #CC79A7.
    Purple,
}

impl Colour {
    /// The colours of data, the most different first; number `at` of them, round and round.
    #[must_use]
    pub const fn of_series(at: usize) -> Self {
        match at % 6 {
            0 => Self::Blue,
            1 => Self::Orange,
            2 => Self::Green,
            3 => Self::Purple,
            4 => Self::Sky,
            _ => Self::Vermilion,
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Ink => "ink",
            Self::Muted => "mut",
            Self::Blue => "blu",
            Self::Orange => "ora",
            Self::Green => "gre",
            Self::Vermilion => "ver",
            Self::Sky => "sky",
            Self::Purple => "pur",
        }
    }
}

/// Classes instead of attributes, so that dark follows the reader's wish without a second picture.
const STYLE: &str = "\
.plot{font-family:'Helvetica Neue',Arial,'DejaVu Sans',sans-serif;font-size:12px}\
.plot .bg{fill:#fff}.plot .grid{stroke:#e2e2e2}.plot .band{fill:#f5f5f5}\
.plot .ink{fill:#1a1a1a}.plot .s-ink{stroke:#1a1a1a}.plot .mut{fill:#666}.plot .s-mut{stroke:#888}\
.plot .blu{fill:#0072b2}.plot .s-blu{stroke:#0072b2}.plot .ora{fill:#e69f00}.plot .s-ora{stroke:#e69f00}\
.plot .gre{fill:#009e73}.plot .s-gre{stroke:#009e73}.plot .ver{fill:#d55e00}.plot .s-ver{stroke:#d55e00}\
.plot .sky{fill:#56b4e9}.plot .s-sky{stroke:#56b4e9}.plot .pur{fill:#cc79a7}.plot .s-pur{stroke:#cc79a7}\
.plot .on{fill:#fff}.plot .ond{fill:#1a1a1a}\
@media (prefers-color-scheme:dark){.plot .bg{fill:#16181c}.plot .grid{stroke:#33373e}.plot .band{fill:#1e2127}\
.plot .ink{fill:#e8e8e8}.plot .s-ink{stroke:#e8e8e8}.plot .mut{fill:#a0a4ab}.plot .s-mut{stroke:#7d828a}\
.plot .blu{fill:#3d9bd6}.plot .s-blu{stroke:#3d9bd6}}";

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// An SVG in the making.
pub(super) struct Svg {
    body: String,
}

/// A rectangle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Svg {
    pub(super) fn new() -> Self {
        Self {
            body: String::new(),
        }
    }

    /// A rectangle filled to `opacity`, with `hover` as its title unless that is empty.
    pub(super) fn rect(&mut self, rect: Rect, colour: Colour, opacity: f64, hover: &str) {
        self.shape(rect, colour.class(), opacity, hover);
    }

    /// A rectangle in the colour of quiet areas.
    pub(super) fn band(&mut self, rect: Rect) {
        self.shape(rect, "band", 1.0, "");
    }

    fn shape(&mut self, rect: Rect, class: &str, opacity: f64, hover: &str) {
        let Rect {
            x,
            y,
            width,
            height,
        } = rect;
        let opacity = if opacity < 1.0 {
            format!(" fill-opacity=\"{opacity:.2}\"")
        } else {
            String::new()
        };
        let _ = write!(
            self.body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"{opacity}"
        );
        self.close("rect", hover);
    }

    pub(super) fn circle(&mut self, (x, y): (f64, f64), radius: f64, colour: Colour, hover: &str) {
        let class = colour.class();
        let _ = write!(
            self.body,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill-opacity=\"0.65\""
        );
        self.close("circle", hover);
    }

    /// A line; dashed if `dash` is not empty.
    pub(super) fn line(
        &mut self,
        from: (f64, f64),
        to: (f64, f64),
        colour: Colour,
        width: f64,
        dash: &str,
        hover: &str,
    ) {
        let class = colour.class();
        let dash = if dash.is_empty() {
            String::new()
        } else {
            format!(" stroke-dasharray=\"{dash}\"")
        };
        let _ = write!(
            self.body,
            "<line class=\"s-{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke-width=\"{width}\"{dash}",
            from.0, from.1, to.0, to.1
        );
        self.close("line", hover);
    }

    pub(super) fn grid(&mut self, from: (f64, f64), to: (f64, f64)) {
        let _ = writeln!(
            self.body,
            "<line class=\"grid\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    /// A line through `runs` of points.
    pub(super) fn path(&mut self, runs: &[Vec<(f64, f64)>], colour: Colour, width: f64) {
        let mut data = String::new();
        for run in runs {
            for (at, (x, y)) in run.iter().enumerate() {
                let _ = write!(data, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
            }
            // A run of one point would be invisible.
            if let [(x, _)] = run.as_slice() {
                let _ = write!(data, "H{:.1}", x + 2.0);
            }
        }
        let class = colour.class();
        let _ = writeln!(
            self.body,
            "<path class=\"s-{class}\" d=\"{data}\" fill=\"none\" stroke-width=\"{width}\" stroke-linejoin=\"round\"/>"
        );
    }

    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, colour: Colour, text: &str) {
        self.label((x, y), anchor, colour.class(), "", text);
    }

    pub(super) fn bold(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        self.label((x, y), anchor, "ink", " font-weight=\"bold\"", text);
    }

    /// A text on an area of `colour`.
    pub(super) fn text_on(&mut self, at: (f64, f64), colour: Colour, text: &str) {
        let class = match colour {
            Colour::Blue | Colour::Green | Colour::Vermilion | Colour::Ink | Colour::Muted => "on",
            Colour::Orange | Colour::Sky | Colour::Purple => "ond",
        };
        self.label(
            at,
            Anchor::Middle,
            class,
            " font-size=\"10.5\" pointer-events=\"none\"",
            text,
        );
    }

    fn label(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, more: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let text = escape(text);
        let _ = writeln!(
            self.body,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\"{anchor}{more}>{text}</text>"
        );
    }

    fn close(&mut self, element: &str, hover: &str) {
        let _ = if hover.is_empty() {
            writeln!(self.body, "/>")
        } else {
            writeln!(self.body, "><title>{}</title></{element}>", escape(hover))
        };
    }

    /// The whole picture, [`WIDTH`] wide; `title` is its accessible name.
    pub(super) fn finish(self, height: f64, title: &str) -> String {
        let title = escape(title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" aria-label=\"{title}\">\n\
             <style>{STYLE}</style>\n<rect class=\"bg\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// `text` for XML and HTML, in elements and in attributes. Characters that XML forbids become U+FFFD.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' => escaped.push(character),
            // XML 1.0 §2.2.
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// How wide `text` is about, in pixels at [`FONT`]: by the widths of Arial's letters, with a margin for other fonts.
pub(super) fn text_width(text: &str) -> f64 {
    let em = |character: char| match character {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.30,
        'f' | 't' | 'r' | 'I' | ' ' | '(' | ')' | '[' | ']' | '/' | '-' => 0.38,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.90,
        'A'..='Z' => 0.72,
        '0'..='9' => 0.60,
        _ if character.is_ascii() => 0.58,
        _ => 0.80,
    };
    text.chars().map(em).sum::<f64>() * FONT * 1.04
}

/// `text` cut to `width` pixels, with an ellipsis where something was cut off.
pub(super) fn fit(text: &str, width: f64) -> String {
    if text_width(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for character in text.chars() {
        kept.push(character);
        if text_width(&kept) + FONT > width {
            kept.pop();
            break;
        }
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_from_a_text() {
        let mut svg = Svg::new();
        let evil = "</text><script>alert(\"1\")</script>\u{1}&'";
        svg.text((0.0, 0.0), Anchor::Start, Colour::Ink, evil);
        svg.rect(
            Rect {
                x: 0.0,
                y: 0.0,
                width: 1.0,
                height: 1.0,
            },
            Colour::Blue,
            0.5,
            evil,
        );
        let text = svg.finish(10.0, evil);
        assert!(
            !text.contains("<script>") && !text.contains('\u{1}'),
            "{text}"
        );
        assert_eq!(escape("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
    }

    #[test]
    fn a_text_is_cut_to_fit() {
        assert_eq!(fit("short", 100.0), "short");
        let cut = fit("a rather long label of a fault", 80.0);
        assert!(cut.ends_with('…') && text_width(&cut) <= 86.0, "{cut}");
    }
}
