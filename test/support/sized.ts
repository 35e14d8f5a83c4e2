/** Lines of a configuration: the policy sizes all guests by their working sets. */
export const SIZED = `
[policy]
mode = "auto"
reserve = "64M"

[[policy.band]]
name = "all"
min = "5%"
size = "working-set"
`;
