//! The pages of `docs/` as tests read them: their fenced blocks, and comments that readers do not see and that say how a block
//! is tested. `tests/it/documents.rs` has the convention.

/// A fenced block, or a comment that speaks to the tests.
#[derive(Clone, Debug)]
pub struct Block {
    /// The line of the fence or of the comment's begin, from 1.
    pub line: usize,
    /// The word after the fence, empty if there is none; `None` is a comment.
    pub language: Option<String>,
    /// The lines between the fences without the indentation of the first fence, or those of the comment.
    pub lines: Vec<String>,
    /// The comment that stands before the fence.
    pub note: Option<String>,
}

impl Block {
    /// What the comment before the fence says after `key`, such as the reason in `<!-- not run: needs a real HSM -->`.
    pub fn note(&self, key: &str) -> Option<&str> {
        Some(self.note.as_deref()?.strip_prefix(key)?.strip_prefix(':')?.trim())
    }

    /// Its lines as one text.
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// The blocks and the comments of a page, in its order. A comment that only blank lines part from a fence is the fence's note.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = page.lines().zip(1..);
    let mut note = None;
    while let Some((line, number)) = lines.next() {
        let begin = line.trim_start();
        let indentation = line.get(..line.len() - begin.len()).unwrap_or_default();
        if let Some(language) = begin.strip_prefix("```") {
            let content = lines.by_ref().map(|(line, _)| line).take_while(|line| line.trim() != "```");
            let content = content.map(|line| line.strip_prefix(indentation).unwrap_or(line).to_owned()).collect();
            let language = Some(language.trim().to_owned());
            blocks.push(Block { line: number, language, lines: content, note: note.take() });
        } else if let Some(comment) = begin.strip_prefix("<!--") {
            let mut content = vec![comment.to_owned()];
            while content.last().is_some_and(|line| !line.contains("-->")) {
                let Some((line, _)) = lines.next() else { break };
                content.push(line.to_owned());
            }
            if let Some(last) = content.last_mut() {
                *last = last.split("-->").next().unwrap_or_default().to_owned();
            }
            note = Some(content.join("\n").trim().to_owned());
            blocks.push(Block { line: number, language: None, lines: content, note: None });
        } else if !begin.is_empty() {
            note = None;
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_has_its_line_its_indentation_and_its_note() {
        let page = "# A\n\n1. x:\n\n   <!-- not run: apt -->\n\n   ```sh\n   a\n     b\n   ```\n\ntext\n<!-- run\nc\n-->\ntext\n```\nd\n```\n";
        let blocks = blocks(page);
        let told: Vec<_> = blocks.iter().map(|block| (block.line, block.language.as_deref(), block.text())).collect();
        let expected = [
            (5, None, " not run: apt \n".to_owned()),
            (7, Some("sh"), "a\n  b\n".to_owned()),
            (13, None, " run\nc\n\n".to_owned()),
            (17, Some(""), "d\n".to_owned()),
        ];
        assert_eq!(told, expected);
        assert_eq!(blocks[1].note("not run"), Some("apt"));
        assert_eq!(blocks[3].note, None);
    }
}
