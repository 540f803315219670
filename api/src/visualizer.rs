//! The picture of the cluster: `/overnet/visualizer`.

use serde::{Deserialize, Serialize};

/// `POST /overnet/visualizer`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct OpenRequest {
    /// `ADDRESS[:PORT]`; empty is `127.0.0.1:9080`.
    pub listen: String,
}

/// Where the picture is served; `GET`, `POST` and `DELETE /overnet/visualizer` answer it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VisualizerView {
    /// Empty when it is not served.
    pub listen: String,
    /// What to open in a browser, with the token where one is needed.
    #[serde(rename = "URL")]
    pub url: String,
}
