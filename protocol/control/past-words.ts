/** The sentence of an action of the policy, as it goes on behind `would have`. */
export function pastWords(says: string): string {
  return says.replace(/^took/, 'taken').replace(/^gave/, 'given');
}
