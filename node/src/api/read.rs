//! What is read of the replicated state: a version of the configuration, and the digest of all of it.

use model::ids::ConfigNumber;
use openraft::ReadPolicy;
use proto::v1;
use tonic::Status;

use super::cluster::Cluster;
use super::relay::ASK_TIMEOUT;

impl Cluster {
    /// Returns when this ATM, which leads, has applied everything that was acknowledged before the call: a majority has
    /// confirmed that nobody leads a later term (Raft, section 6.4).
    pub(super) async fn up_to_date(&self) -> Result<(), Status> {
        let confirmed = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        match tokio::time::timeout(ASK_TIMEOUT, confirmed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Status::unavailable(format!(
                "no majority of the ATMs confirms this one as their leader ({error}); --local shows what one ATM has applied"
            ))),
            Err(_) => Err(Status::unavailable(format!(
                "no majority of the ATMs answered within {ASK_TIMEOUT:?}; --local shows what one ATM has applied"
            ))),
        }
    }

    /// A version as this ATM has applied it.
    pub(super) fn show_config(
        &self,
        request: &v1::ShowConfigRequest,
    ) -> Result<v1::ShowConfigReply, Status> {
        let (state, _) = self.machine.state();
        let number = if request.version == 0 {
            state.config_number()
        } else {
            ConfigNumber(request.version)
        };
        let versions: Vec<u64> = state.versions().keys().map(|number| number.0).collect();
        let Some(version) = state.versions().get(&number) else {
            let kept = match (versions.first(), versions.last()) {
                (Some(first), Some(last)) => format!("versions {first} to {last} are kept"),
                _ => "there is no version yet".into(),
            };
            return Err(Status::not_found(format!("no version {number}: {kept}")));
        };
        let hosts = version.hosts.iter();
        let hosts = hosts.map(|(name, address)| v1::HostAddress {
            name: name.clone(),
            address: address.to_string(),
        });
        Ok(v1::ShowConfigReply {
            version: number.0,
            source: version.source.clone(),
            applied_by: version.by.clone(),
            hosts: hosts.collect(),
            versions,
        })
    }

    /// The digest of the state at one applied index. Takes as long as a snapshot; nothing waits for it.
    pub(super) async fn digest(&self) -> Result<v1::DigestReply, Status> {
        let (state, applied_index) = self.machine.state();
        let digest = tokio::task::spawn_blocking(move || state.digest())
            .await
            .map_err(|_ended| Status::unavailable("this ATM is shutting down"))?;
        Ok(v1::DigestReply {
            atm: self.myself.name.clone(),
            applied_index,
            sha256: digest.to_vec().into(),
        })
    }
}
