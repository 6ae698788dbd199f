//! `docs/ca.md` says what the code says: its tables are made from the code's own.
//!
//! After a change of a table, `UPDATE_DOCS=1 cargo test -p ringmail-ca reference_page` writes the page.

use std::fmt::Write;
use std::path::Path;

use ringmail_ca::audit::Reason;
use ringmail_ca::config::SETTINGS;
use ringmail_ca::door::ConnectionEnd;

fn settings() -> String {
    let mut table = "| setting | default | what it does |\n|---|---|---|\n".to_owned();
    for setting in SETTINGS {
        let default = setting.default.map(|text| format!("`{text}`")).unwrap_or_default();
        let value = setting.value.replace('|', "\\|");
        writeln!(table, "| `--{} {value}` | {default} | {} |", setting.name, setting.help).unwrap();
    }
    table.replace(" ` |", "` |")
}

fn reasons() -> String {
    let mut table = "| reason | gRPC code | meaning | what to do |\n|---|---|---|---|\n".to_owned();
    for reason in Reason::ALL {
        writeln!(
            table,
            "| `{}` | {:?} | {} | {} |",
            reason.as_str(),
            reason.code(),
            reason.meaning().trim(),
            reason.advice()
        )
        .unwrap();
    }
    table
}

fn ends() -> String {
    let mut table = "| reason | meaning |\n|---|---|\n".to_owned();
    for end in ConnectionEnd::ALL {
        writeln!(table, "| `{}` | {} |", end.as_str(), end.meaning().trim()).unwrap();
    }
    table
}

fn replaced(page: &str, name: &str, table: &str) -> String {
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (head, rest) = page.split_once(&open).expect("the page has a place for each table");
    let (_, tail) = rest.split_once(&close).expect("each place has an end");
    format!("{head}{open}{table}{close}{tail}")
}

#[test]
fn the_reference_page_has_the_tables_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ca.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let tables = [("settings", settings()), ("reasons", reasons()), ("connection ends", ends())];
    let current = tables.iter().fold(page.clone(), |page, (name, table)| replaced(&page, name, table));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, current).unwrap();
    } else {
        assert_eq!(page, current, "docs/ca.md is behind the code: run with UPDATE_DOCS=1");
    }
}
