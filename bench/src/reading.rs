//! One line of a figure: what was measured, what stands beside it in the same run, and what is aimed at.

use serde_json::{Value, json};

use crate::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Ns,
    Bytes,
    /// Things that were there at a time.
    Number,
    /// Things that were counted. They are added up over the rounds, all others have a median.
    Count,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    /// At most so much.
    AtMost(f64),
    /// At most so many times what stands beside it.
    TimesBeside(f64),
}

#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) value: f64,
    /// What it is to be compared with, and how much that is.
    pub(crate) beside: Option<(String, f64)>,
    pub(crate) aim: Option<Aim>,
}

impl Reading {
    pub(crate) fn new(what: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self { what: what.into(), unit, value, beside: None, aim: None }
    }

    pub(crate) fn ns(what: impl Into<String>, value: f64) -> Self {
        Self::new(what, Unit::Ns, value)
    }

    #[must_use]
    pub(crate) fn beside(mut self, what: impl Into<String>, value: f64) -> Self {
        self.beside = Some((what.into(), value));
        self
    }

    #[must_use]
    pub(crate) fn aim(mut self, aim: Aim) -> Self {
        self.aim = Some(aim);
        self
    }

    /// How many times what stands beside it; `None` where nothing does.
    pub(crate) fn times(&self) -> Option<f64> {
        self.beside.as_ref().map(|(_, beside)| self.value / beside)
    }

    /// Whether the aim is met; `None` where there is none.
    pub(crate) fn is_met(&self) -> Option<bool> {
        match self.aim? {
            Aim::AtMost(most) => Some(self.value <= most),
            Aim::TimesBeside(most) => self.times().map(|times| times <= most),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut json = json!({ "what": self.what, "value": self.value, "unit": self.unit.name() });
        if let Some((what, value)) = &self.beside {
            json["beside"] = json!({ "what": what, "value": value });
        }
        match self.aim {
            Some(Aim::AtMost(most)) => json["aim_at_most"] = json!(most),
            Some(Aim::TimesBeside(most)) => json["aim_times_beside"] = json!(most),
            None => {}
        }
        json
    }

    pub(crate) fn from_json(json: &Value) -> Result<Self> {
        let read = || {
            let beside = match &json["beside"] {
                Value::Null => None,
                beside => Some((beside["what"].as_str()?.to_owned(), beside["value"].as_f64()?)),
            };
            let times = json["aim_times_beside"].as_f64().map(Aim::TimesBeside);
            Some(Self {
                what: json["what"].as_str()?.to_owned(),
                unit: Unit::named(json["unit"].as_str()?)?,
                value: json["value"].as_f64()?,
                beside,
                aim: json["aim_at_most"].as_f64().map(Aim::AtMost).or(times),
            })
        };
        read().ok_or_else(|| format!("no reading: {json}").into())
    }
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ns => "ns",
            Self::Bytes => "bytes",
            Self::Number => "number",
            Self::Count => "count",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Ns, Self::Bytes, Self::Number, Self::Count].into_iter().find(|unit| unit.name() == name)
    }

    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Ns if value < 10.0 => format!("{value:.1} ns"),
            Self::Ns if value < 10_000.0 => format!("{value:.0} ns"),
            Self::Ns if value < 10_000_000.0 => format!("{:.1} µs", value / 1e3),
            Self::Ns => format!("{:.1} ms", value / 1e6),
            Self::Bytes => format!("{value:.0} B"),
            Self::Number | Self::Count => format!("{value:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Aim, Reading, Unit};

    #[test]
    fn a_reading_survives_its_json() {
        let whole = Reading::ns("derive", 12.5).beside("nothing", 5.0).aim(Aim::TimesBeside(2.0));
        let bare = Reading::new("races", Unit::Count, 3.0).aim(Aim::AtMost(0.0));
        for reading in [whole, bare] {
            let read = Reading::from_json(&reading.to_json()).expect("a reading");
            assert_eq!(format!("{read:?}"), format!("{reading:?}"));
        }
        assert!(Reading::from_json(&serde_json::json!({ "what": "derive" })).is_err());
    }

    #[test]
    fn an_aim_is_of_the_value_or_of_the_ratio() {
        let reading = Reading::ns("derive", 30.0).beside("nothing", 10.0);
        assert_eq!(reading.is_met(), None);
        assert_eq!(reading.clone().aim(Aim::TimesBeside(3.0)).is_met(), Some(true));
        assert_eq!(reading.aim(Aim::AtMost(29.0)).is_met(), Some(false));
    }
}
