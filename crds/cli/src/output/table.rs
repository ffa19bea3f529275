//! [`Table`]: columns and rows, written as kubectl writes them.

/// The least width of a column with the spaces behind it, and their least number (cli-runtime, `GetNewTabWriter`).
const MIN_WIDTH: usize = 6;
const PADDING: usize = 3;

/// Columns and rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    name: String,
    is_wide: bool,
}

impl Table {
    /// Returns a table without rows; `wide` names the columns that only `-o wide` has, which are the last ones.
    pub fn new(columns: &[&str], wide: &[&str]) -> Self {
        let column = |is_wide| move |name: &&str| Column { name: (*name).to_owned(), is_wide };
        let columns = columns.iter().map(column(false)).chain(wide.iter().map(column(true))).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a column, which only `-o wide` has if `is_wide`.
    pub fn add_column(&mut self, name: &str, is_wide: bool) {
        self.columns.push(Column { name: name.to_owned(), is_wide });
    }

    /// Adds a row, with a cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Returns whether there are no rows.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the text, a line for the columns' names unless `no_headers`, and a line for each row.
    pub fn render(&self, is_wide: bool, no_headers: bool) -> String {
        let shown: Vec<usize> =
            (0..self.columns.len()).filter(|at| is_wide || self.columns.get(*at).is_some_and(|c| !c.is_wide)).collect();
        let header = self.columns.iter().map(|column| column.name.to_uppercase()).collect();
        let lines = (!no_headers).then_some(&header).into_iter().chain(&self.rows);
        let lines: Vec<Vec<String>> = lines
            .map(|cells: &Vec<String>| {
                shown.iter().map(|at| cells.get(*at).map_or_else(String::new, |c| cell(c))).collect()
            })
            .collect();
        let width = |at: usize| lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> =
            (0..shown.len()).map(|at| (width(at).unwrap_or_default() + PADDING).max(MIN_WIDTH)).collect();
        let mut text = String::new();
        for line in &lines {
            for (at, cell) in line.iter().enumerate() {
                text.push_str(cell);
                if at + 1 < line.len() {
                    let room = widths.get(at).copied().unwrap_or_default().saturating_sub(cell.chars().count());
                    text.extend(std::iter::repeat_n(' ', room));
                }
            }
            text.push('\n');
        }
        text
    }
}

/// Returns a cell as one line: what comes after its first line is left out, and nothing in it moves the cursor
/// (cli-runtime, `printRows` and `WriteEscaped`).
fn cell(text: &str) -> String {
    let (first, cut) = match text.find(['\n', '\r', '\u{c}']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let mut shown = escaped(first);
    if !cut.is_empty() {
        shown.push_str("...");
    }
    shown
}

/// Returns text that moves no cursor, changes no colour, and has its characters in the order in which they are read:
/// escape characters are written as `^[`.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\u{1b}' => shown.push_str("^["),
            '\r' => shown.push_str("\\r"),
            '\n' | '\t' => shown.push(character),
            _ if character.is_control() || turns(character) => shown.extend(character.escape_unicode()),
            _ => shown.push(character),
        }
    }
    shown
}

/// Returns whether a character changes the direction of those beside it (Unicode's `Bidi_Control`), or ends a line.
const fn turns(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_kubectls() {
        let mut table = Table::new(&["name", "n", "age"], &["reason"]);
        table.row(["tcp-rtt", "1", "5m", "InEffect"].map(str::to_owned));
        table.row(["a-longer-name", "", "2d", ""].map(str::to_owned));
        let narrow = "NAME            N     AGE\ntcp-rtt         1     5m\na-longer-name         2d\n";
        assert_eq!(table.render(false, false), narrow);
        let wide = "tcp-rtt         1     5m    InEffect\na-longer-name         2d    \n";
        assert_eq!(table.render(true, true), wide);
    }

    #[test]
    fn a_cell_is_one_line_that_moves_no_cursor() {
        let mut table = Table::new(&["message"], &[]);
        table.row(["\u{1b}[31mred\nsecond".to_owned()]);
        assert_eq!(table.render(false, true), "^[[31mred...\n");
        assert_eq!(escaped("a\u{202e}b\u{9b}c"), "a\\u{202e}b\\u{9b}c");
    }
}
