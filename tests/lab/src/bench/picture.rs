// SPDX-License-Identifier: GPL-2.0

//! Where rblkback stands, at a glance.

use std::path::Path;

use anyhow::Result;

use super::jobs::Server;
use super::record;
use super::record::Record;
use crate::picture;

const PLOT: &str = include_str!("picture.gp");

/// Draws the ratios of all jobs into a PNG file.
pub fn draw(file: &Path, records: &[(String, &Record)]) -> Result<()> {
    picture::gnuplot(&script(file, records))
}

fn script(file: &Path, records: &[(String, &Record)]) -> String {
    let row = |(name, record): &(String, &Record)| {
        let ratio = |server, figure| {
            let ratio = record.ratio(server, figure);
            ratio.map_or("NaN".into(), |ratio| format!("{ratio}"))
        };
        format!(
            "\"{name}\" {} {} {}\n",
            ratio(Server::Rblkback, record::DOM0),
            ratio(Server::Limited, record::DOM0),
            ratio(Server::Rblkback, record::IOPS)
        )
    };
    let rows: Vec<String> = records.iter().map(row).collect();
    format!(
        "set output '{}'\njobs = {}\n$ratios << EOD\n{}EOD\n{PLOT}",
        file.display(),
        records.len(),
        rows.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::tests::record;

    #[test]
    fn rows() {
        let record = record((1000.0, 10.0), (750.0, 10.0));
        let records = [("read".to_string(), &record)];
        assert!(script(Path::new("x.png"), &records).contains("\"read\" 0.75 NaN 1\n"));
    }
}
