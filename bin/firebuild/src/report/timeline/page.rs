//! The page: figures at the top, the picture, the table.

use std::fmt::Write as _;

use super::chart::{Bar, Chart, Sort};
use crate::report::table::size;

/// Height of a lane and of the axis, width of the names and of the whole picture, in pixels of the drawing.
const LANE: usize = 26;
const AXIS: usize = 28;
const NAMES: f64 = 150.0;
const WIDTH: f64 = 1200.0;
/// Rows of the table.
const MAX_ROWS: usize = 2_000;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The whole page.
pub(super) fn page(chart: &Chart, title: &str, failed: bool) -> String {
    let mut out = String::with_capacity(64 << 10);
    let title = escape(title);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}: timeline</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    );
    let outcome = if failed {
        "<span class=\"outcome bad\">failed</span>"
    } else {
        "<span class=\"outcome good\">finished</span>"
    };
    let _ = write!(out, "<header><h1>{title} {outcome}</h1>");
    figures(&mut out, chart);
    out.push_str("</header>\n");
    legend(&mut out, chart);
    out.push_str("<section class=\"chart\">\n");
    picture(&mut out, chart);
    out.push_str("</section>\n");
    table(&mut out, chart);
    let _ = write!(
        out,
        "<div id=\"tip\" hidden></div>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    );
    out
}

fn figures(out: &mut String, chart: &Chart) {
    let cached = chart
        .bars
        .iter()
        .filter(|bar| bar.state == "cached")
        .count();
    let steps = chart.bars.iter().filter(|bar| bar.sort != Sort::Export);
    let parallel = if chart.total > 0.0 {
        chart.work() / chart.total
    } else {
        0.0
    };
    let share = if chart.total > 0.0 {
        chart.critical / chart.total * 100.0
    } else {
        0.0
    };
    out.push_str("<dl>");
    for (name, value) in [
        ("total", time(chart.total)),
        ("tasks", chart.bars.len().to_string()),
        ("from the cache", format!("{cached} of {}", steps.count())),
        (
            "critical path",
            format!("{} <small>{share:.0}%</small>", time(chart.critical)),
        ),
        ("work at once", format!("{parallel:.1}×")),
    ] {
        let _ = write!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    out.push_str("</dl>");
}

/// Colours, with the time of each.
fn legend(out: &mut String, chart: &Chart) {
    out.push_str("<p class=\"legend\">");
    for sort in Sort::ALL {
        let bars = chart.bars.iter().filter(|bar| bar.sort == sort);
        let sum: f64 = bars.clone().map(Bar::duration).sum();
        if bars.count() > 0 {
            let word = sort.word();
            let _ = write!(
                out,
                "<span><i class=\"{word}\"></i>{word} <b>{}</b></span>",
                time(sum)
            );
        }
    }
    out.push_str(
        "<span><i class=\"cached\"></i>cached</span><span><i class=\"path\"></i>critical path</span></p>\n",
    );
}

fn picture(out: &mut String, chart: &Chart) {
    let lanes: usize = chart.groups.iter().map(|group| group.lanes).sum();
    let height = AXIS + lanes * LANE + chart.groups.len() * 8 + 6;
    let scale = (WIDTH - NAMES - 12.0) / chart.total.max(1.0);
    let at = |time: f64| NAMES + time * scale;
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"tasks over time\">\
         <defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"3\" height=\"6\" class=\"hatch\"/></pattern></defs>"
    );
    for tick in ticks(chart.total) {
        let x = at(tick);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{AXIS}\" y2=\"{height}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"18\">{}</text>",
            time(tick)
        );
    }
    let mut top = AXIS + 4;
    let mut tops = Vec::new();
    for (index, group) in chart.groups.iter().enumerate() {
        tops.push(top);
        let rows = group.lanes * LANE;
        let _ = write!(
            out,
            "<rect class=\"band{}\" x=\"0\" y=\"{top}\" width=\"{WIDTH}\" height=\"{rows}\" rx=\"5\"/>\
             <text class=\"group\" x=\"12\" y=\"{}\">{}</text>",
            index % 2,
            top + LANE / 2 + 4,
            escape(&clip(&group.name, 20))
        );
        top += rows + 8;
    }
    for bar in &chart.bars {
        let y = tops[bar.group] + bar.lane * LANE + 3;
        let x = at(bar.start);
        let width = (bar.duration() * scale).max(2.0);
        let path = if bar.is_critical { " path" } else { "" };
        let _ = write!(
            out,
            "<g class=\"bar {} {}{path}\" data-tip=\"{}\" tabindex=\"0\">\
             <rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" rx=\"4\"/>",
            bar.sort.word(),
            bar.state,
            escape(&tip(bar, chart.total)),
            LANE - 6
        );
        if bar.state == "cached" {
            let _ = write!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" rx=\"4\" fill=\"url(#hatch)\"/>",
                LANE - 6
            );
        }
        // About seven pixels a letter.
        let letters = (width - 10.0) / 6.6;
        if letters >= 4.0 {
            let letters = letters.min(400.0).floor() as usize;
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{}\">{}</text>",
                x + 6.0,
                y + 14,
                escape(&clip(&one_line(&bar.name), letters))
            );
        }
        out.push_str("</g>");
    }
    out.push_str("</svg>\n");
}

/// What hovering shows, line by line.
fn tip(bar: &Bar, total: f64) -> String {
    let mut text = format!(
        "#{} {}\n{} from {} to {} ({:.1}% of the build)\n{}",
        bar.number,
        one_line(&bar.name),
        time(bar.duration()),
        time(bar.start),
        time(bar.end),
        if total > 0.0 {
            bar.duration() / total * 100.0
        } else {
            0.0
        },
        bar.state
    );
    if let Some(bytes) = bar.bytes {
        let _ = write!(text, ", {}", size(bytes));
    }
    if bar.is_critical {
        text += ", on the critical path";
    }
    if let Some(failure) = &bar.failure {
        let _ = write!(text, "\n{failure}");
    }
    text
}

fn table(out: &mut String, chart: &Chart) {
    out.push_str(
        "<table><thead><tr><th>#</th><th>task</th><th>stage</th><th>from</th><th>took</th><th class=\"share\">share</th><th>state</th></tr></thead><tbody>\n",
    );
    let mut bars: Vec<&Bar> = chart.bars.iter().collect();
    bars.sort_by(|a, b| b.duration().total_cmp(&a.duration()));
    for bar in bars.iter().take(MAX_ROWS) {
        let share = if chart.total > 0.0 {
            bar.duration() / chart.total * 100.0
        } else {
            0.0
        };
        let path = if bar.is_critical {
            " class=\"path\""
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "<tr{path}><td>{}</td><td class=\"name\">{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td class=\"share\"><meter max=\"100\" value=\"{share:.1}\"></meter> {share:.1}%</td><td>{}</td></tr>",
            bar.number,
            escape(&one_line(&bar.name)),
            escape(&chart.groups[bar.group].name),
            time(bar.start),
            time(bar.duration()),
            bar.state
        );
    }
    out.push_str("</tbody></table>\n");
    if bars.len() > MAX_ROWS {
        let _ = writeln!(
            out,
            "<p>{} shorter tasks are left out.</p>",
            bars.len() - MAX_ROWS
        );
    }
}

/// Round times for the axis, eight at most.
fn ticks(total: f64) -> Vec<f64> {
    let mut step = 1.0;
    let factors = [2.0, 2.5, 2.0];
    let mut turn = factors.iter().cycle();
    while total / step > 8.0 {
        step *= turn.next().unwrap_or(&2.0);
    }
    let mut ticks = Vec::new();
    let mut at = 0.0;
    while at <= total {
        ticks.push(at);
        at += step;
    }
    ticks
}

/// Milliseconds for people.
fn time(millis: f64) -> String {
    if millis == 0.0 {
        "0".to_owned()
    } else if millis < 999.5 {
        format!("{millis:.0} ms")
    } else if millis < 59_950.0 {
        format!("{:.1} s", millis / 1e3)
    } else {
        let seconds = (millis / 1e3).round();
        format!(
            "{:.0}:{:02.0} min",
            (seconds / 60.0).floor(),
            seconds % 60.0
        )
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn clip(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    let mut clipped: String = text.chars().take(letters.saturating_sub(1)).collect();
    clipped.push('…');
    clipped
}

/// Text for HTML, in elements and in attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::chart::{Chart, tests::build};
    use super::{escape, page, ticks, time};

    #[test]
    fn the_page_holds_everything_and_escapes_it() {
        let chart = Chart::new(&build());
        let text = page(&chart, "a<b>\"c'&", false);
        assert!(text.contains("a&lt;b&gt;&quot;c&#39;&amp;"));
        assert!(text.contains("&lt;script&gt;alert(1)"));
        assert_eq!(text.matches("<script>").count(), 1);
        assert_eq!(text.matches("<g class=\"bar").count(), 3);
        for outside in ["http://", "https://", "src=", "href=", "@import"] {
            assert!(!text.contains(outside), "{outside}");
        }
        assert!(text.contains("url(#hatch)"));
    }

    #[test]
    fn figures() {
        assert_eq!(time(12.4), "12 ms");
        assert_eq!(time(1_540.0), "1.5 s");
        assert_eq!(time(61_000.0), "1:01 min");
        for total in [0.0, 3.0, 950.0, 61_000.0, 3.6e6] {
            let ticks = ticks(total);
            assert!(!ticks.is_empty() && ticks.len() <= 10, "{total}: {ticks:?}");
        }
        assert_eq!(escape("\u{7}\n"), " &#10;");
    }
}
