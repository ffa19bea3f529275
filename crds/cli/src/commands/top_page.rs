//! The page of `top` on a terminal.

use std::time::Duration;

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Modifier, Style},
    text::Line,
    widgets::{Cell, Paragraph, Row, Table},
};
use sockeye_read_api::node::Node;
use tokio::sync::mpsc::Sender;

use crate::view::top::{self, By};

/// The terminal while the page is on it.
pub struct Screen {
    terminal: DefaultTerminal,
    by: By,
    first: usize,
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Fails where that can't be.
    pub fn open(by: By) -> std::io::Result<Self> {
        Ok(Self { terminal: ratatui::try_init()?, by, first: 0 })
    }

    /// Draws what changed between two looks.
    ///
    /// # Errors
    /// Fails where the terminal is gone.
    pub fn draw(&mut self, before: &[Node], after: &[Node], notes: &[String]) -> std::io::Result<()> {
        let rows = top::rows(before, after, self.by);
        self.first = self.first.min(rows.len().saturating_sub(1));
        let (by, first) = (self.by, self.first);
        self.terminal.draw(|frame| draw(frame, &rows[first..], by, notes))?;
        Ok(())
    }

    /// Does what a key asks for. Returns false for one that ends the page.
    pub fn press(&mut self, key: KeyEvent) -> bool {
        let is_interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
        match key.code {
            _ if is_interrupt => return false,
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('f') => self.by = By::Function,
            KeyCode::Char('p') => self.by = By::Program,
            KeyCode::Char('n') => self.by = By::Node,
            KeyCode::Down | KeyCode::Char('j') => self.first += 1,
            KeyCode::Up | KeyCode::Char('k') => self.first = self.first.saturating_sub(1),
            _ => {}
        }
        true
    }
}

/// Draws the page: a line that says what is shown, the table, what is missing, and the keys.
pub fn draw(frame: &mut Frame<'_>, rows: &[top::Row], by: By, notes: &[String]) {
    let notes_height = u16::try_from(notes.len().min(3)).unwrap_or_default();
    let [head, body, missing, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(notes_height),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let share: f64 = rows.iter().filter_map(|row| row.cpu_share).sum();
    let memory: u64 = rows.iter().map(|row| row.memory_bytes).sum();
    let text = format!(
        "sockeye top: {} rows, {} of a processor, {} of memory",
        rows.len(),
        crate::output::quantity::percent(share),
        crate::output::quantity::format_bytes(memory)
    );
    frame.render_widget(Line::styled(text, Style::new().add_modifier(Modifier::BOLD)), head);
    let cells: Vec<Vec<String>> = rows.iter().map(|row| top::cells(row, by)).collect();
    let columns = top::columns(by);
    let width = |at: usize| {
        let longest = cells.iter().filter_map(|cells| cells.get(at)).map(|cell| cell.chars().count()).max();
        let title = columns.get(at).map_or(0, |column| column.len());
        Constraint::Length(u16::try_from(longest.unwrap_or_default().max(title)).unwrap_or(u16::MAX))
    };
    let widths: Vec<Constraint> = (0..columns.len()).map(width).collect();
    let header = Row::new(columns.iter().map(|column| Cell::new(column.to_uppercase())));
    let header = header.style(Style::new().add_modifier(Modifier::REVERSED));
    let table = Table::new(cells.into_iter().map(Row::new), widths).header(header).column_spacing(3);
    frame.render_widget(table, body);
    let lines: Vec<Line<'_>> = notes.iter().map(|note| Line::raw(format!("note: {note}"))).collect();
    frame.render_widget(Paragraph::new(lines), missing);
    let help = "f by function   p by program   n by node   up, down scroll   q quit";
    frame.render_widget(Line::styled(help, Style::new().add_modifier(Modifier::DIM)), keys);
}

/// Reads keys until nobody wants them. Blocks, so it has a thread of its own.
pub fn read_keys(sender: &Sender<KeyEvent>) {
    while !sender.is_closed() {
        match event::poll(Duration::from_millis(200)) {
            Ok(false) => {}
            Ok(true) => match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if sender.blocking_send(key).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    #[test]
    fn the_page_has_the_rows_the_notes_and_the_keys() {
        let row = top::Row {
            program: Some("tcp-rtt".into()),
            runs: Some(10),
            nanoseconds: Some(1000),
            runs_per_second: Some(5.0),
            cpu_share: Some(0.25),
            links: 3,
            memory_bytes: 2048,
            ..top::Row::default()
        };
        let mut terminal = Terminal::new(TestBackend::new(70, 6)).unwrap();
        terminal.draw(|frame| draw(frame, &[row], By::Program, &["node b: no answer".to_owned()])).unwrap();
        let expected = [
            "sockeye top: 1 rows, 25.00% of a processor, 2.0Ki of memory",
            "PROGRAM   RUNS/S   TIME/RUN   CPU      LINKS   MEMORY",
            "tcp-rtt   5.0      100ns      25.00%   3       2.0Ki",
            "",
            "note: node b: no answer",
            "f by function   p by program   n by node   up, down scroll   q quit",
        ];
        let text = terminal.backend().to_string();
        let shown: Vec<&str> = text.lines().map(|line| line.trim_matches('"').trim_end()).collect();
        assert_eq!(shown, expected);
    }
}
